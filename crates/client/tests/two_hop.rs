//! The yardstick runs, with three processes.

use std::path::Path;
use std::time::Duration;

#[test]
fn bytes_go_there_and_answers_come_back() {
    let program = Path::new(env!("CARGO_BIN_EXE_twincell-load"));
    for (bytes, depth) in [(4096, 1), (4096, 16), (131072, 4), (16, 1)] {
        let figures = twincell_client::two_hop::run(program, bytes, depth, Duration::from_millis(100)).unwrap();
        assert!(figures.requests > depth as u64, "{figures}");
        assert_eq!(figures.bytes, figures.requests * bytes as u64);
    }
}
