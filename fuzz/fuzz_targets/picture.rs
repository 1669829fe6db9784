//! Files that a client names as reference, or that a folder holds: PNG, JPEG, WebP, whatever they are called.
#![no_main]

use std::{
    fs::File,
    io::{Seek as _, Write as _},
};

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, memfd_create};

// libFuzzer's hook ends the program at every panic, and `decode` catches those of decoders. One that it lets through
// still ends it.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |input: &[u8]| {
    let mut file: File = memfd_create(c"picture", MemfdFlags::CLOEXEC).expect("memory").into();
    file.write_all(input).and_then(|()| file.rewind()).expect("memory");
    if let Ok(picture) = gstkeyframed::picture::decode(file) {
        assert!(picture.width() <= 16384 && picture.height() <= 16384);
        assert!(picture.as_bytes().len() <= 1 << 30);
    }
});
