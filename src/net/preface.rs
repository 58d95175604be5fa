//! Closes a connection that sends nothing: reading has a deadline until the HTTP/2 preface has
//! arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose first bytes must arrive in time.
pub(crate) struct Preface<S> {
    stream: S,
    /// The bytes that must still arrive, and the deadline; `None` after they have arrived.
    awaited: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Preface<S> {
    pub(crate) fn new(stream: S, deadline: Instant) -> Self {
        Self {
            stream,
            awaited: Some((PREFACE_BYTES, Box::pin(tokio::time::sleep_until(deadline)))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Preface<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some((missing, deadline)) = &mut this.awaited else {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        };
        if deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no HTTP/2 preface")));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        match missing.checked_sub(buffer.filled().len() - before) {
            None | Some(0) => this.awaited = None,
            Some(still) => *missing = still,
        }
        Poll::Ready(Ok(()))
    }
}

/// Writes are not vectored, on purpose. h2 then copies a message of less than 1 KiB into its buffer,
/// and writes the answers of many calls at once. Otherwise an answer of 256 bytes or more would be a
/// write of its own. Larger ones than 1 KiB are rare, and take two writes.
impl<S: AsyncWrite + Unpin> AsyncWrite for Preface<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The client's connection preface and the head of the SETTINGS frame that must follow it (RFC
/// 9113, section 3.4).
const PREFACE_BYTES: usize = 24 + 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_are_not_vectored_where_those_of_the_stream_are() {
        let (stream, _peer) = tokio::io::duplex(64);
        assert!(stream.is_write_vectored());
        assert!(!Preface::new(stream, Instant::now()).is_write_vectored());
    }
}
