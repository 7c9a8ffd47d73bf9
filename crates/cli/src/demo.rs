//! `twincell demo`: the main job, from the making of a cell to the return of a killed controller, in one run.

use crate::cell::{self, Create, free_port};
use crate::config::{CellConfig, FILE_NAME};
use crate::daemon;
use crate::exit::{Code, Failure, Result};
use crate::lun;
use crate::output::Report;
use crate::size::Size;
use crate::status::{LunLine, look, look_at_both, summarize};
use clap::Args;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use twincell_client::Url;
use twincell_client::checker::{Checker, Options, Regions};
use twincell_client::multipath::Timing;
use twincell_core::ids::Controller;
use twincell_engine::random_uuid;

const DISKS: usize = 6;
const DISK_SIZE: Size = Size(512 << 20);
const CACHE: Size = Size(32 << 20);
const LUN: &str = "demo";
const LUN_SIZE: Size = Size(256 << 20);
/// The part of the LUN that the load uses: more than the cache, so that disks are in it too.
const REGION_BLOCKS: u64 = (96 << 20) / 512;
const WRITERS: u32 = 6;
/// How long the load runs before the kill, and after the return.
const LOAD: Duration = Duration::from_secs(4);
/// How long anything may take that nobody can hurry.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// What the demo is to do.
#[derive(Debug, Args)]
pub struct Demo {
    /// Leave the cell running, and say how to use it.
    #[arg(long)]
    keep: bool,
}

/// What the demo measured.
#[derive(Debug, Serialize)]
struct Figures {
    writes: u64,
    blocks_written: u64,
    blocks_verified: u64,
    write_median_us: u64,
    write_99_percent_us: u64,
    killed: String,
    dirty_buffers_at_kill: u32,
    open_writes_at_kill: u32,
    longest_pause_ms: u128,
    mirrored_again_after_ms: u128,
    violations: u64,
    kept: Option<PathBuf>,
}

/// A cell of the demo. When it goes, its processes, its memory and its directory go, unless they are to be kept.
struct Stage {
    config: CellConfig,
    dir: PathBuf,
    dir_was_there: bool,
    children: [Option<Child>; 2],
    interrupted: Arc<AtomicBool>,
    quiet: bool,
    keep: bool,
}

/// The command.
pub fn run(dir: Option<&Path>, asked: &Demo, quiet: bool) -> Result<Report> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, interrupted.clone())
            .map_err(|e| Failure::io("watch for", "signals", &e))?;
    }
    let dir = match dir {
        Some(dir) => cell::directory(Some(dir))?,
        None => std::env::temp_dir().join(format!("twincell-demo-{:08x}", random_uuid().0 as u32)),
    };
    let mut stage = Stage::create(dir, interrupted, quiet)?;
    let played = stage.play();
    match &played {
        Ok(_) if asked.keep => stage.keep = true,
        Ok(_) => {}
        Err(_) => stage.say(&stage.last_words()),
    }
    let mut figures = played?;
    if !stage.keep {
        stage.say("Stopping both controllers, and cleaning up.");
        stage.stop()?;
        return Ok(Report::new("", "demo", figures));
    }
    figures.kept = Some(stage.dir.clone());
    let program = std::env::current_exe().map_or_else(|_| "twincell".to_owned(), |p| p.display().to_string());
    let dir = stage.dir.display();
    stage.say(&format!(
        "\nThe cell is still running, in {dir}. To use it:\n  export TWINCELL_DIR={dir}\n  {program} status\n  \
         {program} lun create mine --size 64M\n  {program} controller stop A     and then: {program} cell start\n\
         To end it:\n  {program} cell stop && rm -r {dir}"
    ));
    Ok(Report::new("", "demo", figures))
}

impl Stage {
    fn create(dir: PathBuf, interrupted: Arc<AtomicBool>, quiet: bool) -> Result<Stage> {
        let dir_was_there = dir.exists();
        if dir.join(FILE_NAME).exists() {
            return Err(
                Failure::new(Code::Conflict, format!("there is a cell in {} already", dir.display()))
                    .next("the demo makes its own: name an empty directory, or none"),
            );
        }
        let mut held = Vec::new();
        let mut port = || free_port(&mut held);
        let asked = Create {
            name: Some("demo".to_owned()),
            disks: DISKS,
            disk_size: DISK_SIZE,
            paths: Vec::new(),
            yes: false,
            cache: CACHE,
            iscsi_a: port()?,
            iscsi_b: port()?,
            nbd_a: port()?,
            nbd_b: port()?,
            link_a: vec![port()?],
            link_b: vec![port()?],
        };
        drop(held);
        cell::create(&dir, &asked)?;
        let config = CellConfig::load(&dir.join(FILE_NAME))?;
        let stage = Stage {
            config,
            dir,
            dir_was_there,
            children: [None, None],
            interrupted,
            quiet,
            keep: false,
        };
        stage.say(&format!(
            "Made a cell of {DISKS} disks of {DISK_SIZE} (sparse files) in {}, with {CACHE} of cache in each controller.",
            stage.dir.display()
        ));
        Ok(stage)
    }

    /// The whole story.
    fn play(&mut self) -> Result<Figures> {
        self.start(&Controller::BOTH)?;
        let lun = self.make_lun()?;
        let urls = urls(&lun)?;
        let mut checker = Checker::start(Options {
            urls: urls.clone(),
            writers: WRITERS,
            readers: 1,
            regions: Regions::Shared,
            region: 0..REGION_BLOCKS,
            seed: random_uuid().0 as u64,
            history: None,
            timing: Timing::default(),
        })
        .map_err(|e| Failure::new(Code::Refused, format!("the load does not start: {e}")))?;
        self.say(&format!(
            "\nA host writes through every path, {WRITERS} writers and a reader, and checks all it reads."
        ));
        self.load_for(&checker, LOAD)?;
        let before = checker.report();
        self.say(&format!(
            "{} writes acknowledged in {} s; half of them within {} us.",
            before.writes,
            LOAD.as_secs(),
            before.write_latency.value_at_quantile(0.5)
        ));

        let (killed, at_stake) = self.kill_owner()?;
        self.wait("writes to go on", |_| checker.report().writes > before.writes + 100)?;
        self.load_for(&checker, LOAD)?;
        let pause = checker.report().longest_gap.length;
        let survivor = killed.other();
        self.say(&format!(
            "{survivor} found out, was sure that {killed} can write nothing more, and took over. Writes stood still for {} ms.",
            pause.as_millis()
        ));

        self.say(&format!("\nBringing {killed} back."));
        let back = Instant::now();
        self.start(&[killed])?;
        let mirrored = back.elapsed();
        self.say(&format!(
            "It is level again after {} ms, and writes are mirrored.",
            mirrored.as_millis()
        ));
        self.load_for(&checker, LOAD)?;
        checker.stop();

        self.say("\nReading everything back through each path.");
        for url in &urls {
            let read = checker.verify_all(url);
            read.map_err(|e| Failure::new(Code::Refused, format!("reading back through {url} failed: {e}")))?;
        }
        let report = checker.report();
        if !report.is_sound() {
            return Err(Failure::new(
                Code::Refused,
                format!("something was lost or wrong:\n{report}"),
            ));
        }
        self.say(&format!(
            "{} writes were acknowledged, and {} blocks were read and checked: nothing was lost, torn or old.",
            report.writes, report.blocks_verified
        ));
        Ok(Figures {
            writes: report.writes,
            blocks_written: report.blocks_written,
            blocks_verified: report.blocks_verified,
            write_median_us: report.write_latency.value_at_quantile(0.5),
            write_99_percent_us: report.write_latency.value_at_quantile(0.99),
            killed: killed.to_string(),
            dirty_buffers_at_kill: at_stake.0,
            open_writes_at_kill: at_stake.1,
            longest_pause_ms: pause.as_millis(),
            mirrored_again_after_ms: mirrored.as_millis(),
            violations: report.violations,
            kept: None,
        })
    }

    /// Starts controllers, and waits until the cell is mirrored.
    fn start(&mut self, controllers: &[Controller]) -> Result<()> {
        for controller in controllers {
            self.children[controller.index()] = Some(daemon::spawn(&self.config, *controller)?);
        }
        self.wait("both controllers to serve, mirrored", |stage| {
            let status = summarize(&stage.config, &look_at_both(&stage.config));
            status.cell.state == "ok"
                && Controller::BOTH
                    .iter()
                    .all(|c| daemon::lacks(&stage.config, *c).is_none())
        })?;
        if controllers.len() == 2 {
            let [a, b] = self.children.each_ref().map(|c| c.as_ref().map_or(0, Child::id));
            self.say(&format!(
                "Controller A runs as process {a}, controller B as process {b}; both serve, mirrored."
            ));
        }
        Ok(())
    }

    fn make_lun(&self) -> Result<LunLine> {
        let (lun, _) = lun::create(&self.config, LUN, LUN_SIZE, "vraid1")?;
        let owner = &lun.owner;
        self.say(&format!(
            "LUN {LUN}: {LUN_SIZE}, two copies on two disks, owned by {owner}. Its addresses:"
        ));
        for url in lun.iscsi_urls.iter().chain(&lun.nbd_urls) {
            self.say(&format!("  {url}"));
        }
        Ok(lun)
    }

    /// Ends the owner as `kill -9` does. Says who it was, and what its memory held: buffers that the disks may lack,
    /// and writes in progress.
    fn kill_owner(&mut self) -> Result<(Controller, (u32, u32))> {
        let owner = lun::find(&self.config, LUN)?.owner;
        let owner = crate::config::controller_named(&owner).map_err(Failure::usage)?;
        let seen = look(&self.config, owner);
        let at_stake = seen.status().map_or((0, 0), |s| (s.dirty_buffers, s.open_ries));
        let Some(mut child) = self.children[owner.index()].take() else {
            return Err(Failure::new(Code::Refused, format!("controller {owner} does not run")));
        };
        self.say(&format!(
            "\nkill -9 {}: controller {owner}, which owns the LUN. A moment before, its memory held {} buffers that the \
             disks lack, and {} writes in progress.",
            child.id(),
            at_stake.0,
            at_stake.1
        ));
        let ended = child.kill().and_then(|()| child.wait());
        ended.map_err(|e| Failure::io("end", format!("controller {owner}"), &e))?;
        Ok((owner, at_stake))
    }

    fn load_for(&mut self, checker: &Checker, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.wait("the load", |_| Instant::now() > end || !checker.is_running())?;
        let report = checker.report();
        if report.is_sound() && checker.is_running() {
            return Ok(());
        }
        Err(Failure::new(
            Code::Refused,
            format!("the load found something wrong:\n{report}"),
        ))
    }

    /// Waits, unless somebody interrupts or a controller ends that should run.
    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&Stage) -> bool) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self) {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Failure::new(Code::Refused, "interrupted"));
            }
            self.check_controllers()?;
            if Instant::now() > deadline {
                return Err(Failure::new(
                    Code::TimedOut,
                    format!("waited {} s for {what}", LIMIT.as_secs()),
                ));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Fails if a controller has ended that should run.
    fn check_controllers(&mut self) -> Result<()> {
        for (child, controller) in self.children.iter_mut().zip(Controller::BOTH) {
            let Some(running) = child else { continue };
            let ended = running
                .try_wait()
                .map_err(|e| Failure::io("watch", "a controller", &e))?;
            if let Some(status) = ended {
                *child = None;
                return Err(Failure::new(
                    Code::Unreachable,
                    format!("controller {controller} ended: {status}"),
                ));
            }
        }
        Ok(())
    }

    /// Stops both controllers in good order.
    fn stop(&mut self) -> Result<()> {
        cell::stop(&self.config)?;
        for child in self.children.iter_mut().filter_map(Option::take) {
            let mut child = child;
            child.wait().map_err(|e| Failure::io("wait for", "a controller", &e))?;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let last = |c: Controller| {
            format!(
                "The end of {c}'s log:\n{}\n",
                daemon::last_lines(&self.config.log(c), 12)
            )
        };
        format!("\n{}{}", last(Controller::A), last(Controller::B))
    }

    fn say(&self, text: &str) {
        use std::io::Write;
        // With --json only the object goes to the standard output.
        let _ = match self.quiet {
            true => writeln!(std::io::stderr(), "{text}"),
            false => writeln!(std::io::stdout(), "{text}"),
        };
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for child in self.children.iter_mut().flatten() {
            let _ = child.kill().and_then(|()| child.wait());
        }
        for controller in Controller::BOTH {
            let Ok(memory) = self.config.nv_memory(controller) else {
                continue;
            };
            // A controller that was stopped has removed its memory itself.
            let _ = std::fs::remove_file(&memory);
        }
        cell::remove(&self.dir, self.dir_was_there);
    }
}

/// The addresses of a LUN as a host uses them, the owner's first.
fn urls(lun: &LunLine) -> Result<Vec<Url>> {
    let all = lun.iscsi_urls.iter().chain(&lun.nbd_urls);
    all.map(|url| url.parse())
        .collect::<std::result::Result<_, _>>()
        .map_err(|e: twincell_client::BadUrl| Failure::usage(e.to_string()))
}
