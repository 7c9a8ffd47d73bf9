//! `twincell cell`: making a cell, starting and stopping both of its controllers.

use crate::claim::{Claim, PATIENCE, disks_dir};
use crate::config::{CellConfig, DISKS_MAX, FILE_NAME, Section, check_address, check_name, dir_of_environment};
use crate::confirm::confirm;
use crate::controller::stop_and_wait;
use crate::daemon;
use crate::exit::{Code, Failure, Result};
use crate::output::Report;
use crate::size::Size;
use crate::status::{look_at_both, summarize};
use clap::{Args, Subcommand};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use twincell_core::ids::Controller;
use twincell_engine::{CreateError, DISK_BYTES_MIN, NewDisk, create_disks, random_uuid};

/// Where free ports are looked for: below those that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// A file of a disk has whole pages.
const DISK_STEP: u64 = 4096;

/// What can be done with a cell.
#[derive(Debug, Subcommand)]
pub enum CellVerb {
    /// Make a cell in a directory. What a `cell create` that was interrupted has left there goes first.
    Create(Box<Create>),
    /// Start whichever of the two controllers is not running.
    Start,
    /// Flush and stop both controllers.
    Stop,
    /// Delete a cell (not built yet).
    Delete {
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

/// What a cell is to be like.
#[derive(Clone, Debug, Args)]
pub struct Create {
    /// Its name; by default the last part of DIR.
    #[arg(long)]
    pub name: Option<String>,
    /// How many disks, made as files in DIR/disks.
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub disks: usize,
    /// The size of each of them.
    #[arg(long, default_value = "1G", value_name = "SIZE")]
    pub disk_size: Size,
    /// A block device or file to use instead, whole; once for each disk. If there is something on it, which is lost, that is
    /// asked.
    #[arg(long = "disk", value_name = "PATH", conflicts_with_all = ["disks", "disk_size"])]
    pub paths: Vec<PathBuf>,
    /// Do not ask whether what is on the disks may be lost.
    #[arg(long)]
    pub yes: bool,
    /// The cache of each controller, 2M to 128G.
    #[arg(long, default_value = "64M", value_name = "SIZE")]
    pub cache: Size,
    /// The iSCSI portal of A: where hosts reach it, not 0.0.0.0.
    #[arg(long, default_value = "127.0.0.1:3260", value_name = "HOST:PORT")]
    pub iscsi_a: String,
    /// The iSCSI portal of B: where hosts reach it, not 0.0.0.0.
    #[arg(long, default_value = "127.0.0.1:3261", value_name = "HOST:PORT")]
    pub iscsi_b: String,
    /// The NBD portal of A: where hosts reach it, not 0.0.0.0.
    #[arg(long, default_value = "127.0.0.1:10809", value_name = "HOST:PORT")]
    pub nbd_a: String,
    /// The NBD portal of B: where hosts reach it, not 0.0.0.0.
    #[arg(long, default_value = "127.0.0.1:10810", value_name = "HOST:PORT")]
    pub nbd_b: String,
    /// The link address of A; by default a free port of this machine. Up to 4, for as many paths to B: each on a network
    /// of its own, in the order in which they are preferred.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', num_args = 1)]
    pub link_a: Vec<String>,
    /// The link address of B, the n-th for the path to the n-th of A; by default as many free ports.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', num_args = 1)]
    pub link_b: Vec<String>,
}

/// The directory that a new cell goes to.
pub fn directory(dir: Option<&Path>) -> Result<PathBuf> {
    let dir = dir.map(Path::to_owned).or_else(dir_of_environment);
    let dir = dir.ok_or_else(|| Failure::usage("where to? --dir DIR names the directory of the new cell"))?;
    std::path::absolute(&dir).map_err(|e| Failure::io("find", dir.display(), &e))
}

/// `cell create`.
pub fn create(dir: &Path, asked: &Create) -> Result<Report> {
    let file = dir.join(FILE_NAME);
    if !file.exists() {
        let mut config = plan(dir, file.clone(), asked)?;
        if let Some(claim) = Claim::take(dir, PATIENCE)? {
            config.uuid = claim.begun_on(&config.disks).unwrap_or(config.uuid);
            build(claim, &config, asked)?;
            return Ok(report(&config, "is there"));
        }
    }
    let config = CellConfig::load(&file)?;
    same_as(&config, dir, asked)?;
    Ok(report(&config, "exists already, just like that"))
}

fn new_disks(config: &CellConfig, asked: &Create) -> Vec<NewDisk> {
    let size_bytes = asked.paths.is_empty().then_some(asked.disk_size.0);
    let disk = |path: &PathBuf| NewDisk {
        path: path.clone(),
        size_bytes,
    };
    config.disks.iter().map(disk).collect()
}

/// Checks everything that was asked for, and changes nothing.
fn plan(dir: &Path, file: PathBuf, asked: &Create) -> Result<CellConfig> {
    let name = match &asked.name {
        Some(name) => name.clone(),
        None => name_of(dir)?,
    };
    check_name(&name).map_err(|why| Failure::usage(why).next("--name gives it another"))?;
    if asked.paths.is_empty() {
        check_disk_files(asked)?;
    }
    for address in [&asked.iscsi_a, &asked.iscsi_b, &asked.nbd_a, &asked.nbd_b]
        .into_iter()
        .chain(&asked.link_a)
        .chain(&asked.link_b)
    {
        check_address(address).map_err(Failure::usage)?;
    }
    let mut held = Vec::new();
    let mut link = |given: &[String], other: &[String]| match given {
        [] => (0..other.len().max(1)).map(|_| free_port(&mut held)).collect(),
        _ => Ok(given.to_vec()),
    };
    let section = |iscsi: &String, nbd: &String, link: Vec<String>| Section {
        link,
        iscsi: vec![iscsi.clone()],
        nbd: vec![nbd.clone()],
        control: None,
        nv_memory: None,
    };
    let controllers = [
        section(&asked.iscsi_a, &asked.nbd_a, link(&asked.link_a, &asked.link_b)?),
        section(&asked.iscsi_b, &asked.nbd_b, link(&asked.link_b, &asked.link_a)?),
    ];
    CellConfig::new(
        file,
        name,
        random_uuid(),
        asked.cache,
        disk_paths(dir, asked)?,
        controllers,
    )
}

fn check_disk_files(asked: &Create) -> Result<()> {
    if !(1..=DISKS_MAX).contains(&asked.disks) {
        return Err(Failure::usage(format!(
            "--disks {}: a cell has 1 to {DISKS_MAX} disks",
            asked.disks
        )));
    }
    let size = asked.disk_size;
    if size.0 < DISK_BYTES_MIN || !size.0.is_multiple_of(DISK_STEP) || i64::try_from(size.0).is_err() {
        return Err(Failure::usage(format!(
            "--disk-size {}: a disk has at least {}, and whole pages of {DISK_STEP} bytes",
            size.exact(),
            Size(DISK_BYTES_MIN)
        )));
    }
    Ok(())
}

fn disk_paths(dir: &Path, asked: &Create) -> Result<Vec<PathBuf>> {
    let width = (asked.disks - 1).to_string().len();
    if asked.paths.is_empty() {
        return Ok((0..asked.disks)
            .map(|n| disks_dir(dir).join(format!("{n:0width$}")))
            .collect());
    }
    let absolute = |path: &PathBuf| std::path::absolute(path).map_err(|e| Failure::io("find", path.display(), &e));
    asked.paths.iter().map(absolute).collect()
}

/// The last part of DIR, in lower case, other characters as `-`. A name begins with a letter or digit.
fn name_of(dir: &Path) -> Result<String> {
    let last = dir.file_name().map(|n| n.to_string_lossy().into_owned()).or_else(|| {
        let real = dir.canonicalize().ok()?;
        Some(real.file_name()?.to_string_lossy().into_owned())
    });
    let last = last.ok_or_else(|| Failure::usage(format!("{} has no last part to name the cell by", dir.display())))?;
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '-'
        }
    };
    let name: String = last.chars().map(plain).collect();
    Ok(name.trim_start_matches('-').to_owned())
}

/// A free port of this machine. It stays taken until `held` goes, so that the next is another.
pub fn free_port(held: &mut Vec<TcpListener>) -> Result<String> {
    let count = PORTS.end - PORTS.start;
    let first = (random_uuid().0 % u128::from(count)) as u16;
    for step in 0..count {
        let port = PORTS.start + (first + step) % count;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            held.push(listener);
            return Ok(format!("127.0.0.1:{port}"));
        }
    }
    Err(Failure::new(
        Code::Conflict,
        format!("no port of {} to {} is free", PORTS.start, PORTS.end),
    )
    .next("name the link's addresses with --link-a and --link-b"))
}

/// Makes the cell. `cell.toml` comes last, and whole: a directory without it is not a cell.
fn build(mut claim: Claim, config: &CellConfig, asked: &Create) -> Result<()> {
    claim.announce(config)?;
    if asked.paths.is_empty() {
        claim.make_dir(disks_dir(config.dir()))?;
    }
    for controller in Controller::BOTH {
        claim.make_dir(config.controller_dir(controller))?;
    }
    make_disks(config, asked)?;
    claim.make_it_a_cell()
}

/// Disks that have something on them are taken only if that is meant.
fn make_disks(config: &CellConfig, asked: &Create) -> Result<()> {
    let disks = new_disks(config, asked);
    let create = |overwrite| create_disks(config.uuid, &config.name, &disks, overwrite);
    let made = match create(asked.yes) {
        Err(not_blank @ CreateError::NotBlank { .. }) => {
            let lost = format!("{not_blank}; all that is there will be lost.");
            confirm(
                &config.name,
                asked.yes,
                &format!("cell {} is not made", config.name),
                &lost,
            )?;
            create(true)
        }
        made => made,
    };
    made.map_err(|e| disks_refused(&e))
}

/// A disk that cannot be made one of a cell.
pub fn disks_refused(error: &CreateError) -> Failure {
    let code = match error {
        CreateError::Count { .. } | CreateError::TooSmall { .. } | CreateError::Name { .. } => Code::Usage,
        CreateError::Labelled { .. } | CreateError::Twice { .. } => Code::Conflict,
        CreateError::Io { source, .. } => {
            return Failure {
                what: error.to_string(),
                ..Failure::io("", "", source)
            };
        }
        CreateError::InUse { .. }
        | CreateError::NotBlank { .. }
        | CreateError::SectorSize { .. }
        | CreateError::NoOther => Code::Refused,
    };
    Failure::new(code, error.to_string()).next("nothing was made")
}

/// Removes a cell, and its directory if that was not there before. It must be the caller's own, with nobody running.
pub fn remove(dir: &Path, existed: bool) {
    // The file first: what cannot be removed after it is no cell all the same.
    let _ = std::fs::remove_file(dir.join(FILE_NAME));
    for part in ["disks", "A", "B"] {
        let _ = std::fs::remove_dir_all(dir.join(part));
    }
    if !existed {
        let _ = std::fs::remove_dir(dir);
    }
}

/// Whether the cell that is there is what was asked for.
fn same_as(config: &CellConfig, dir: &Path, asked: &Create) -> Result<()> {
    let differs = |what: &str, is: String, wanted: String| {
        if is == wanted {
            return Ok(());
        }
        let all = format!(
            "cell {} is in {} already: {what} is {is}, not {wanted}",
            config.name,
            dir.display()
        );
        Err(Failure::new(Code::Conflict, all).next("choose another directory, or ask for the same"))
    };
    let [a, b] = Controller::BOTH.map(|c| config.section(c));
    differs(
        "its name",
        config.name.clone(),
        asked.name.clone().map_or_else(|| name_of(dir), Ok)?,
    )?;
    differs("its cache", config.cache.exact(), asked.cache.exact())?;
    differs(
        "its number of disks",
        config.disks.len().to_string(),
        disk_paths(dir, asked)?.len().to_string(),
    )?;
    differs("the iSCSI portal of A", a.iscsi.join(","), asked.iscsi_a.clone())?;
    differs("the iSCSI portal of B", b.iscsi.join(","), asked.iscsi_b.clone())?;
    differs("the NBD portal of A", a.nbd.join(","), asked.nbd_a.clone())?;
    differs("the NBD portal of B", b.nbd.join(","), asked.nbd_b.clone())?;
    for (is, given, whose) in [(&a.link, &asked.link_a, "A"), (&b.link, &asked.link_b, "B")] {
        let is = is.join(",");
        let wanted = if given.is_empty() { is.clone() } else { given.join(",") };
        differs(&format!("the link of {whose}"), is, wanted)?;
    }
    if asked.paths.is_empty() {
        for disk in &config.disks {
            let is = std::fs::metadata(disk)
                .map_err(|e| Failure::io("look at", disk.display(), &e))?
                .len();
            differs("the size of its disks", Size(is).exact(), asked.disk_size.exact())?;
        }
    }
    Ok(())
}

#[derive(serde::Serialize)]
struct CellCreated<'a> {
    name: &'a str,
    uuid: String,
    dir: &'a Path,
    config: &'a Path,
    iqn: &'a str,
    disks: &'a [PathBuf],
    cache_bytes: u64,
}

fn report(config: &CellConfig, what: &str) -> Report {
    let created = CellCreated {
        name: &config.name,
        uuid: config.uuid.to_string(),
        dir: config.dir(),
        config: &config.file,
        iqn: &config.target,
        disks: &config.disks,
        cache_bytes: config.cache.0,
    };
    let text = format!(
        "Cell {} {what}: {} disks, {} of cache in each controller.\n`twincell cell start --dir {}` starts it.\n",
        config.name,
        config.disks.len(),
        config.cache,
        config.dir().display()
    );
    Report::new(text, "cell", created)
}

/// `cell start`.
pub fn start(config: &CellConfig) -> Result<Report> {
    let mut started = Vec::new();
    for controller in Controller::BOTH {
        daemon::await_end_of_dying(config, controller);
        if !daemon::is_running(config, controller) {
            started.push((controller, daemon::spawn(config, controller)?));
        }
    }
    daemon::wait_until_serving(config, &Controller::BOTH, &mut started)?;
    let status = summarize(config, &look_at_both(config));
    let text = format!(
        "Cell {} serves through both controllers. `twincell status --dir {}` shows its state.\n",
        config.name,
        config.dir().display()
    );
    Ok(Report::of(text, &status))
}

/// `cell stop`.
pub fn stop(config: &CellConfig) -> Result<Report> {
    let mut failures = Vec::new();
    let mut ran = false;
    let mut left = Vec::new();
    // B hands its LUNs to A, then A flushes everything.
    for controller in [Controller::B, Controller::A] {
        match stop_and_wait(config, controller) {
            Ok(this) => {
                ran |= this;
                // Who leaves with everything on the disks removes its memory.
                if this && config.nv_memory(controller).is_ok_and(|memory| memory.exists()) {
                    left.push(controller.to_string());
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(failure) = failures.into_iter().next() {
        return Err(failure);
    }
    let text = if !left.is_empty() {
        format!(
            "is stopped; its disks may lack what the memory of {} keeps, which is lost if that machine is restarted before \
             `twincell cell start`",
            left.join(" and ")
        )
    } else if ran {
        "is stopped; everything is on its disks".to_owned()
    } else {
        "was not running".to_owned()
    };
    Ok(Report::of(
        format!("Cell {} {text}.\n", config.name),
        summarize(config, &look_at_both(config)),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::FileExt;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    fn asked(args: &[&str]) -> Create {
        Line::try_parse_from(std::iter::once(&"x").chain(args)).unwrap().create
    }

    fn planned(args: &[&str]) -> Result<CellConfig> {
        plan(
            Path::new("/cells/My_Cell.2"),
            "/cells/My_Cell.2/cell.toml".into(),
            &asked(args),
        )
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let config = planned(&[]).unwrap();
        assert_eq!(
            (config.name.as_str(), config.cache, config.disks.len()),
            ("my-cell-2", Size(64 << 20), 8)
        );
        assert_eq!(config.target, "iqn.2026-11.io.twincell:my-cell-2");
        assert_eq!(config.disks[7], Path::new("/cells/My_Cell.2/disks/7"));
        assert_eq!(config.section(Controller::B).iscsi, ["127.0.0.1:3261"]);
        assert_ne!(config.section(Controller::A).link, config.section(Controller::B).link);
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_written() {
        for args in [
            &["--name", "Upper"][..],
            &["--name", ""],
            &["--disks", "0"],
            &["--disks", "241"],
            &["--disk-size", "63M"],
            &["--disk-size", "67108865"],
            &["--disk-size", "15E"],
            &["--cache", "1023K"],
            &["--iscsi-a", "127.0.0.1"],
            &["--iscsi-a", "127.0.0.1:99999"],
            &["--nbd-b", "127.0.0.1:0"],
            &["--nbd-b", "127.0.0.1:3260"],
            &["--iscsi-a", "0.0.0.0:3260"],
            &["--nbd-a", "[::]:10809"],
            &["--link-a", "0.0.0.0:7000"],
            &["--link-a", "nowhere"],
            &["--link-a", "10.0.0.1:7000", "--link-a", "10.0.0.1:7000"],
            &["--link-a", "10.0.0.1:7000", "--link-b", "10.0.0.1:7000"],
            &["--link-a", "10.0.0.1:7000,10.0.1.1:7000", "--link-b", "10.0.0.2:7000"],
            &["--link-a", "10.0.0.1:1,10.0.0.1:2,10.0.0.1:3,10.0.0.1:4,10.0.0.1:5"],
        ] {
            assert_eq!(planned(args).unwrap_err().code, Code::Usage, "{args:?}");
        }
        // On two servers each could listen there, so it is not the port that is wrong.
        let everywhere = ["--iscsi-a", "0.0.0.0:3260", "--iscsi-b", "0.0.0.0:3260"];
        let what = planned(&everywhere).unwrap_err().what;
        assert!(what.contains("every address") && !what.contains("two things"), "{what}");
    }

    #[test]
    fn a_link_has_as_many_paths_as_addresses() {
        let two = ["--link-a", "10.0.0.1:7000", "--link-a", "10.0.1.1:7000"];
        let config = planned(&two).unwrap();
        assert_eq!(config.section(Controller::A).link, ["10.0.0.1:7000", "10.0.1.1:7000"]);
        let [first, second] = &config.section(Controller::B).link[..] else {
            panic!("B has as many")
        };
        assert_ne!(first, second);
        let both = ["--link-a", "10.0.0.1:7,10.0.1.1:7", "--link-b", "10.0.0.2:7,10.0.1.2:7"];
        let config = planned(&both).unwrap();
        assert_eq!(config.section(Controller::B).link, ["10.0.0.2:7", "10.0.1.2:7"]);
    }

    #[test]
    fn a_directory_with_something_else_in_it_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("mine"), "x").unwrap();
        let failure = create(dir.path(), &asked(&["--disks", "1", "--disk-size", "64M"])).unwrap_err();
        assert_eq!(failure.code, Code::Conflict);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    const SMALL: [&str; 4] = ["--disks", "2", "--disk-size", "64M"];

    /// The state that a signal leaves behind in the middle of the disks.
    fn interrupt(dir: &Path) {
        let config = plan(dir, dir.join(FILE_NAME), &asked(&["--disks", "12"])).unwrap();
        for part in ["disks", "A", "B"] {
            std::fs::create_dir_all(dir.join(part)).unwrap();
        }
        std::fs::write(dir.join(".cell.toml.new"), config.to_text()).unwrap();
        for disk in &config.disks[..7] {
            std::fs::write(disk, "").unwrap();
        }
    }

    #[test]
    fn the_rest_of_one_that_was_interrupted_goes() {
        let dir = tempfile::tempdir().unwrap();
        interrupt(dir.path());
        create(dir.path(), &asked(&SMALL)).unwrap();
        let names = |dir: &Path| {
            let entries = std::fs::read_dir(dir).unwrap();
            let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(dir.path()), ["A", "B", "cell.toml", "disks"]);
        assert_eq!(names(&dir.path().join("disks")), ["0", "1"]);
    }

    #[test]
    fn what_somebody_has_put_beside_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        interrupt(dir.path());
        let mine = ["mine", "disks/mine", "A/mine"].map(|name| dir.path().join(name));
        mine.iter().for_each(|path| std::fs::write(path, "x").unwrap());
        let failure = create(dir.path(), &asked(&SMALL)).unwrap_err();
        assert_eq!(failure.code, Code::Conflict);
        assert!(mine.iter().all(|path| path.exists()));
    }

    /// Two disks that are there, and the command that makes a cell of them.
    fn on_disks(parent: &Path) -> ([PathBuf; 2], Create) {
        let disks = ["x", "y"].map(|name| parent.join(name));
        for disk in &disks {
            std::fs::File::create(disk).unwrap().set_len(DISK_BYTES_MIN).unwrap();
        }
        let [x, y] = disks.each_ref().map(|d| d.to_str().unwrap());
        let asked = asked(&["--disk", x, "--disk", y]);
        (disks, asked)
    }

    /// A test has no terminal.
    #[test]
    fn what_is_on_a_disk_is_lost_only_if_that_is_said() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cell");
        let (disks, mut asked) = on_disks(parent.path());
        let mine = |disk: &Path| {
            std::fs::File::options()
                .write(true)
                .open(disk)
                .unwrap()
                .write_all_at(b"mine", 9000)
        };
        disks.iter().for_each(|d| mine(d).unwrap());
        let failure = create(&dir, &asked).unwrap_err();
        assert_eq!(failure.code, Code::Refused);
        let said = failure.to_string();
        for word in [disks[0].to_str().unwrap(), disks[1].to_str().unwrap(), "lost", "--yes"] {
            assert!(said.contains(word), "{word} is missing in: {said}");
        }
        assert!(!dir.exists());
        asked.yes = true;
        create(&dir, &asked).unwrap();
        asked.yes = false;
        create(&dir, &asked).unwrap();
    }

    /// The state that a signal leaves behind after the labels of disks that were given.
    fn interrupt_at_the_end(dir: &Path) {
        std::fs::rename(dir.join(FILE_NAME), dir.join(".cell.toml.new")).unwrap();
    }

    #[test]
    fn given_disks_that_were_begun_are_taken_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cell");
        let (_, asked) = on_disks(parent.path());
        create(&dir, &asked).unwrap();
        interrupt_at_the_end(&dir);
        // A run that fails in between takes nothing away from that.
        let mut wrong = asked.clone();
        wrong.paths[1] = parent.path().join("z");
        assert_eq!(create(&dir, &wrong).unwrap_err().code, Code::Conflict);
        create(&dir, &asked).unwrap();
        // Another cell has no right to them.
        let failure = create(&parent.path().join("other"), &asked).unwrap_err();
        assert_eq!(failure.code, Code::Conflict);
        assert!(failure.what.contains("label"), "{failure}");
    }

    /// Disks that cannot be made are the end of it; a cell that is there by then would stay, as does all else.
    #[test]
    fn what_fails_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("cell");
        let disk = parent.path().join("disk");
        std::fs::write(&disk, "too small").unwrap();
        let failure = create(&dir, &asked(&["--disk", disk.to_str().unwrap()])).unwrap_err();
        assert_eq!(failure.code, Code::Usage);
        assert!(!dir.exists() && disk.exists());
    }
}
