//! The output of the log: lines are collected in memory, and one thread writes many of them at
//! once.
//!
//! A call copies its line, and makes no system call. Nothing is dropped: if the reader is so slow
//! that [`MAX_BYTES`] are waiting, the callers of the log wait, too.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::sync::lock;

/// Takes lines, and writes them to an output from its own thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lines(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    /// Signals that there is something to write.
    filled: Condvar,
    /// Signals that something was written.
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    lines: u64,
    /// Whether the thread has taken lines that it has not written yet.
    is_writing: bool,
    /// Whether a caller waits for the last line to be written.
    is_flushing: bool,
}

impl Lines {
    /// Starts the thread that writes to `output`.
    pub(crate) fn to(output: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            dropped: AtomicU64::new(0),
        });
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Without a thread there is no log. The lines then wait, up to their bound.
        let _ = thread.spawn(move || writing.write_to(output));
        Self(shared)
    }

    /// The number of lines that could not be written, because the output was closed.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// Waits until every line is written, a second at most.
    pub(crate) fn flush(&self) {
        let shared = &*self.0;
        let mut waiting = lock(&shared.waiting);
        waiting.is_flushing = true;
        shared.filled.notify_one();
        let is_open = |waiting: &mut Waiting| waiting.is_writing || !waiting.bytes.is_empty();
        let drained = shared.drained.wait_timeout_while(waiting, FLUSH, is_open);
        let (mut waiting, _) = drained.unwrap_or_else(PoisonError::into_inner);
        waiting.is_flushing = false;
    }

    /// Takes a whole line. Waits while the reader is too slow.
    pub(crate) fn add(&self, line: &[u8]) {
        let shared = &*self.0;
        let waiting = lock(&shared.waiting);
        let is_full = |waiting: &mut Waiting| waiting.bytes.len() >= MAX_BYTES;
        let room = shared.drained.wait_while(waiting, is_full);
        let mut waiting = room.unwrap_or_else(PoisonError::into_inner);
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(line);
        waiting.lines += 1;
        let is_enough = (before..waiting.bytes.len()).contains(&(ENOUGH_BYTES - 1));
        if before == 0 || is_enough {
            shared.filled.notify_one();
        }
    }
}

impl Shared {
    fn write_to(&self, mut output: impl Write) {
        // The two buffers are exchanged, so that neither is allocated again.
        let mut taken = Vec::new();
        loop {
            let lines = self.take(&mut taken);
            let written = output.write_all(&taken).and_then(|()| output.flush());
            if written.is_err() {
                self.dropped.fetch_add(lines, Relaxed);
            }
            taken.clear();
            taken.shrink_to(MAX_BYTES);
            lock(&self.waiting).is_writing = false;
            self.drained.notify_all();
        }
    }

    /// Waits for a line, and a moment more for those that follow it.
    fn take(&self, taken: &mut Vec<u8>) -> u64 {
        let waiting = lock(&self.waiting);
        let is_empty = |waiting: &mut Waiting| waiting.bytes.is_empty();
        let waiting = self.filled.wait_while(waiting, is_empty);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let may_grow =
            |waiting: &mut Waiting| !waiting.is_flushing && waiting.bytes.len() < ENOUGH_BYTES;
        let more = self.filled.wait_timeout_while(waiting, LINGER, may_grow);
        let (mut waiting, _) = more.unwrap_or_else(PoisonError::into_inner);
        waiting.is_writing = true;
        std::mem::swap(&mut waiting.bytes, taken);
        // There is room again before the write has ended.
        self.drained.notify_all();
        std::mem::take(&mut waiting.lines)
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The most bytes that wait to be written.
const MAX_BYTES: usize = 1024 * 1024;

/// With more bytes than this, the thread writes at once.
const ENOUGH_BYTES: usize = 128 * 1024;

/// How long a line may wait for others: too short for a person or a collector to notice.
const LINGER: Duration = Duration::from_millis(10);

/// The longest time that the end of the process waits for its log.
const FLUSH: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that writes when it is told to, and tells what it was given.
    struct Slow(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order_and_many_at_a_time() {
        let ((go, going), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let mut lines = Lines::to(Slow(going, tell));
        for number in 0..1000 {
            writeln!(lines, "{number}").unwrap();
        }
        (0..1000).for_each(|_| go.send(()).unwrap());
        lines.flush();
        let written: Vec<_> = told.try_iter().collect();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(written.concat()).unwrap(), expected);
        assert!(written.len() < 20, "{} writes", written.len());
        assert_eq!(lines.dropped(), 0);
    }

    #[test]
    fn a_reader_that_is_too_slow_holds_the_writers_up_and_loses_nothing() {
        let ((go, going), (tell, told)) = (mpsc::channel(), mpsc::channel());
        let lines = Lines::to(Slow(going, tell));
        let line = [b'x'; 1023];
        let many = 4 * MAX_BYTES / 1024;
        let writer = std::thread::spawn({
            let mut lines = lines.clone();
            move || (0..many).for_each(|_| lines.write_all(&line).unwrap())
        });
        let mut waiting = 0;
        while waiting < MAX_BYTES {
            std::thread::yield_now();
            waiting = lock(&lines.0.waiting).bytes.len();
        }
        assert!(!writer.is_finished(), "more than its bound is kept");
        assert!(waiting < MAX_BYTES + 1024);
        drop(go);
        writer.join().unwrap();
        Lines::flush(&lines);
        assert_eq!(told.try_iter().map(|bytes| bytes.len()).sum::<usize>(), many * line.len());
    }

    #[test]
    fn lines_of_an_output_that_is_gone_are_counted() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Lines::to(Gone);
        (0..3).for_each(|_| lines.write_all(b"line\n").unwrap());
        Lines::flush(&lines);
        assert_eq!(lines.dropped(), 3);
    }
}
