//! B2t: B2 with a fast allocator.

#[path = "../naive.rs"]
mod naive;

#[tokio::main]
async fn main() {
    naive::serve().await;
}

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
