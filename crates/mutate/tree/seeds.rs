//! Seeds of the simulator, one after the other, until one fails; at the end a digest of all of them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().expect("a number")).collect();
    let mut digest = DefaultHasher::new();
    for seed in numbers[0]..numbers[0] + numbers[1] {
        // A panic says no seed: this line does.
        eprintln!("seed {seed}");
        match twincell_sim::run(seed, false) {
            Ok(report) => report.digest.hash(&mut digest),
            Err(what) => {
                println!("FAILED: {what}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("digest {:016x}", digest.finish());
    ExitCode::SUCCESS
}
