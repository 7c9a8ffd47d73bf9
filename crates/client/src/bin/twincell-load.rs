//! Load from the command line, for benchmarks and tests with real processes.
//!
//! ```text
//! twincell-load check SECONDS WRITERS READERS MIB own|shared HISTORY|- URL...
//! twincell-load replay HISTORY
//! twincell-load bench read|write sequential|random BLOCKS DEPTH SECONDS URL
//! twincell-load two-hop BYTES DEPTH SECONDS
//! twincell-load discover HOST:PORT
//! ```
//!
//! Exits 0 if all went well, 1 if data were wrong or something failed, 2 if it was called wrongly.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime};

use twincell_client::bench::{self, Load, Operation, Pattern};
use twincell_client::checker::{Checker, Options, Regions, replay};
use twincell_client::multipath::Timing;
use twincell_client::{Url, iscsi, two_hop};

const TIMEOUT: Duration = Duration::from_secs(10);

type Outcome = Result<bool, Box<dyn Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(e) if e.is::<Usage>() => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
        Err(e) => {
            eprintln!("twincell-load: {e}");
            ExitCode::from(1)
        }
    }
}

/// The command line makes no sense.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "twincell-load: {}", self.0)?;
        writeln!(
            f,
            "usage: check SECONDS WRITERS READERS MIB own|shared HISTORY|- URL..."
        )?;
        writeln!(f, "       replay HISTORY")?;
        writeln!(f, "       bench read|write sequential|random BLOCKS DEPTH SECONDS URL")?;
        writeln!(f, "       two-hop BYTES DEPTH SECONDS")?;
        write!(f, "       discover HOST:PORT")
    }
}

impl Error for Usage {}

fn run(args: &[String]) -> Outcome {
    if two_hop::child(args)? {
        return Ok(true);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["check", seconds, writers, readers, mib, regions, history, urls @ ..] if !urls.is_empty() => check(
            Duration::from_secs(number(seconds)?),
            &Options {
                urls: urls.iter().map(|u| u.parse()).collect::<Result<_, _>>()?,
                writers: number(writers)?,
                readers: number(readers)?,
                regions: choice(regions, &[("own", Regions::Own), ("shared", Regions::Shared)])?,
                region: 0..number::<u64>(mib)? * 2048,
                seed: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64,
                history: (*history != "-").then(|| history.into()),
                timing: Timing::default(),
            },
        ),
        ["replay", history] => {
            let history = replay(Path::new(history))?;
            history.told().iter().for_each(|text| println!("{text}"));
            println!("{} violations", history.violations());
            Ok(history.violations() == 0)
        }
        ["bench", operation, pattern, blocks, depth, seconds, url] => {
            let mut device = url.parse::<Url>()?.connect(TIMEOUT)?;
            let load = Load {
                operation: choice(operation, &[("read", Operation::Read), ("write", Operation::Write)])?,
                pattern: choice(
                    pattern,
                    &[("sequential", Pattern::Sequential), ("random", Pattern::Random)],
                )?,
                blocks: number(blocks)?,
                depth: number(depth)?,
                duration: Duration::from_secs(number(seconds)?),
                span: u64::MAX,
            };
            println!("{}", bench::run(device.as_mut(), &load)?);
            device.close(TIMEOUT);
            Ok(true)
        }
        ["two-hop", bytes, depth, seconds] => {
            let program = std::env::current_exe()?;
            let duration = Duration::from_secs(number(seconds)?);
            println!("{}", two_hop::run(&program, number(bytes)?, number(depth)?, duration)?);
            Ok(true)
        }
        ["discover", address] => {
            for target in iscsi::discover(address, TIMEOUT)? {
                println!("{} {:?}", target.name, target.portals);
            }
            Ok(true)
        }
        _ => Err(Usage(format!("{words:?}")).into()),
    }
}

/// Runs the checker, and reads everything back through each path.
fn check(duration: Duration, options: &Options) -> Outcome {
    println!("seed {}", options.seed);
    let mut checker = Checker::start(options.clone())?;
    let end = Instant::now() + duration;
    while checker.is_running() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut report = checker.stop();
    for url in &options.urls {
        report = checker.verify_all(url)?;
    }
    print!("{report}");
    Ok(report.is_sound())
}

fn number<T: FromStr>(text: &str) -> Result<T, Usage> {
    text.parse()
        .map_err(|_| Usage(format!("{text:?} is not a number that fits")))
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Usage> {
    let found = choices.iter().find(|(name, _)| *name == text);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| Usage(format!("{text:?} is none of the choices")))
}
