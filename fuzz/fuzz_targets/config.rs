//! The daemon's configuration, from text to what everything runs on, or everything that is wrong with it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    keyframed::hostile::config(text);
});
