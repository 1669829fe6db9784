//! Weights being read on a thread of their own.
use std::{
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use crate::models::LoadResult;

/// A result that will arrive once. Dropping it waits for the thread: a process must not exit while one is inside
/// libtorch.
pub struct Loading<T> {
    receiver: Receiver<LoadResult<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Loading<T> {
    /// Runs `load` on a thread called `name`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn start(name: &str, load: impl FnOnce() -> LoadResult<T> + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(1);
        let run = move || {
            // Nobody may be waiting any more: the element was stopped.
            let _ = sender.send(load());
        };
        let thread = Some(Builder::new().name(name.into()).spawn(run)?);
        Ok(Self { receiver, thread })
    }

    /// The result if it arrives within `timeout`. A loader that died is an error like any other.
    pub fn wait(&self, timeout: Duration) -> Option<LoadResult<T>> {
        match self.receiver.recv_timeout(timeout) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err("the loader died".into())),
        }
    }
}

impl<T> Drop for Loading<T> {
    fn drop(&mut self) {
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            // Its panic has been reported where it happened, and `wait` says that it died.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_deaths_arrive() {
        let loading = Loading::start("ok", || Ok(7)).unwrap();
        assert_eq!(loading.wait(Duration::from_secs(10)), Some(Ok(7)));
        let loading = Loading::<u8>::start("dies", || panic!("on purpose")).unwrap();
        assert!(loading.wait(Duration::from_secs(10)).unwrap().is_err());
        let slow = || {
            std::thread::sleep(Duration::from_millis(50));
            Ok(1)
        };
        let loading = Loading::start("slow", slow).unwrap();
        assert_eq!(loading.wait(Duration::ZERO), None);
    }
}
