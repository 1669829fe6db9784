//! Threads of elements that give way to others of the process.

/// Makes the calling thread, and those that it starts from now on, so much nicer than it is; 19 is the most. For a
/// thread's first line: without privileges there is no way back. On other systems than Linux, where that would be the
/// whole process, it does nothing.
#[cfg(target_os = "linux")]
pub fn give_way(by: i32) {
    use rustix::process::{getpriority_process, setpriority_process};
    // Of no process in particular: of the calling thread. A refusal changes nothing.
    if let Ok(own) = getpriority_process(None) {
        let _ = setpriority_process(None, own.saturating_add(by));
    }
}

/// Does nothing.
#[cfg(not(target_os = "linux"))]
pub fn give_way(_by: i32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    fn on_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            std::thread::Builder::new().spawn_scoped(scope, run).unwrap().join().unwrap()
        })
    }

    #[test]
    fn one_thread_and_what_it_starts_give_way() {
        let own = || getpriority_process(None).unwrap();
        let usual = own();
        let nicer = on_thread(|| {
            give_way(3);
            [own(), on_thread(own)]
        });
        assert_eq!(nicer, [(usual + 3).min(19); 2]);
        assert_eq!(own(), usual, "nobody else does");
        assert_eq!(
            on_thread(|| {
                give_way(100);
                own()
            }),
            19
        );
    }
}
