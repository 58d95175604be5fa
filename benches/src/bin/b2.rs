//! B2: tonic and the AWS SDK, as anyone would first write it. Usage: `b2 HOST:PORT`, with the
//! endpoint, the region and the credentials in the environment.

#[path = "../naive.rs"]
mod naive;

#[tokio::main]
async fn main() {
    naive::serve().await;
}
