//! A file that somebody gives to `twincell link decode`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twincell_wire::capture::{read_capture, read_plain};

fuzz_target!(|bytes: &[u8]| {
    let plain = read_plain(bytes);
    assert_eq!(plain.found.last().map_or(0, |f| f.bytes.end), bytes.len() as u64);
    match read_capture(bytes) {
        Ok(directions) => {
            for direction in directions {
                let ends = direction.found.windows(2).all(|w| w[0].bytes.end == w[1].bytes.start);
                assert!(ends, "bytes are left out: {direction:?}");
            }
        }
        Err(bad) => assert!(bad.offset <= bytes.len()),
    }
});
