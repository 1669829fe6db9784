//! Standard error as it is in the world: a pipe whose reader is gone, or has stopped reading.

use std::{
    io::{self, StderrLock, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Writes to standard error what it takes at once. What it does not take is lost, and nobody is told, for there is
/// nobody to tell: no line is worth a picture that comes late, and failing to log must not become a panic that is logged.
pub struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Taken;

    fn make_writer(&'a self) -> Taken {
        Taken(io::stderr().lock())
    }
}

/// Standard error, while one line is written.
pub struct Taken(StderrLock<'static>);

impl Write for Taken {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if takes(&self.0) {
            let _ = self.0.write_all(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a line can be written without waiting. A pipe says so while it has room for 4 KiB.
fn takes(file: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(file, PollFlags::OUT)];
    let answered = poll(&mut asked, Some(&Timespec::default()));
    // Whatever cannot be asked (nothing does) is written to.
    answered.is_err() || asked[0].revents().contains(PollFlags::OUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::pipe};

    #[test]
    fn a_full_pipe_and_one_without_a_reader_take_nothing() {
        let (reader, mut writer) = pipe().unwrap();
        let mut written = 0;
        while takes(&writer) {
            written += writer.write(&[b'x'; 4096]).unwrap();
        }
        assert!(written >= 4096, "{written}");
        drop(reader);
        // It may say that it can be written to, and what is written fails: nobody waits.
        if takes(&writer) {
            writer.write_all(b"x").unwrap_err();
        }
        assert!(takes(&File::options().write(true).open("/dev/null").unwrap()));
    }
}
