//! `cargo xtask soak` runs this.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use twincell_rig::campaign::{Campaign, Order, Until};
use twincell_rig::fault::Kind;
use twincell_rig::restart;

const USAGE: &str =
    "usage: twincell-soak (--cycles N | --minutes N) (--dir DIR [--seed S] [--kinds KIND,...] | --resume DIR)
       twincell-soak --restart MIB --dir DIR";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let asked = match Asked::parse(&args) {
        Ok(asked) => asked,
        Err(e) => {
            eprintln!("twincell-soak: {e}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&asked) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("\ntwincell-soak: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What the command line says.
#[derive(Default)]
struct Asked {
    cycles: Option<u64>,
    minutes: Option<u64>,
    dir: Option<PathBuf>,
    resume: Option<PathBuf>,
    seed: Option<u64>,
    kinds: Vec<Kind>,
    /// Instead of a campaign: a restart of both with so many MiB of cache in each, all of it dirty.
    restart: Option<u64>,
}

impl Asked {
    fn parse(args: &[String]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        for pair in args.chunks(2) {
            let [option, value] = pair else {
                return Err(format!("{} needs a value", pair[0]));
            };
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|_| format!("{option} {value}: not a number"))
            };
            match option.as_str() {
                "--cycles" => asked.cycles = Some(number()?),
                "--minutes" => asked.minutes = Some(number()?),
                "--seed" => asked.seed = Some(number()?),
                "--restart" => asked.restart = Some(number()?),
                "--dir" => asked.dir = Some(value.into()),
                "--resume" => asked.resume = Some(value.into()),
                "--kinds" => asked.kinds = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                _ => return Err(format!("there is no option {option}")),
            }
        }
        if asked.restart.is_none() && asked.cycles.is_some() == asked.minutes.is_some() {
            return Err("either --cycles or --minutes says how long".to_owned());
        }
        if asked.dir.is_some() == asked.resume.is_some() {
            return Err("either --dir names a new directory, or --resume one of an earlier run".to_owned());
        }
        Ok(asked)
    }

    fn campaign(&self) -> Result<Campaign, String> {
        match (&self.resume, &self.dir) {
            (Some(dir), _) => Campaign::resume(dir),
            (None, Some(dir)) => {
                let all = Kind::all().collect();
                let kinds = if self.kinds.is_empty() { all } else { self.kinds.clone() };
                let seed = self.seed.unwrap_or_else(|| u64::from(std::process::id()));
                Campaign::new(dir, seed, &kinds, Order::Drawn)
            }
            (None, None) => Err(USAGE.to_owned()),
        }
    }
}

fn run(asked: &Asked) -> Result<(), String> {
    if let (Some(cache), Some(dir)) = (asked.restart, &asked.dir) {
        std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        print!("{}", restart::measure(dir, cache)?);
        return Ok(());
    }
    let mut campaign = asked.campaign()?;
    println!("seed {}, from cycle {} on", campaign.seed, campaign.next);
    let until = match (asked.cycles, asked.minutes) {
        (Some(cycles), _) => Until::Counted(cycles),
        (None, minutes) => Until::Time(Instant::now() + Duration::from_secs(60 * minutes.unwrap_or_default())),
    };
    let result = campaign.run(until);
    println!("\n{}", campaign.tally);
    result
}
