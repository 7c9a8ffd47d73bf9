//! A cell of real processes.

use crate::keeper::Keeper;
use crate::ports::Ports;
use crate::shelf::Shelf;
use crate::tool::{Ended, run_command};
use crate::wait_for;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// How long a cell may take until it serves, and until it is mirrored again.
pub const SETTLE: Duration = Duration::from_secs(40);
/// How long any command of the operator may take here; the longest of their own limits is 60 s.
const COMMAND: Duration = Duration::from_secs(90);

/// The options of `cell create` that take an address, and the port of each.
const ADDRESSES: [(&str, u16); 6] = [
    ("--iscsi-a", 0),
    ("--iscsi-b", 1),
    ("--nbd-a", 2),
    ("--nbd-b", 3),
    ("--link-a", 4),
    ("--link-b", 5),
];

/// What a test wants of its cell.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many disks.
    pub disks: u32,
    /// Their size, as the command line has it.
    pub disk_size: &'static str,
    /// The cache of each controller.
    pub cache: &'static str,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            disks: 6,
            disk_size: "256M",
            cache: "16M",
        }
    }
}

/// The disks of a new cell.
#[derive(Clone, Debug)]
pub enum Pool {
    /// So many files of this size, made with the cell.
    Made(u32, &'static str),
    /// These, whole.
    Given(Vec<PathBuf>),
}

/// A cell in a directory of its own. When it goes, its processes and its memory go.
#[derive(Debug)]
pub struct Cell {
    keeper: Keeper,
    dir: TempDir,
    ports: Ports,
}

impl Cell {
    /// Makes a cell on ports of its own, and starts nothing.
    pub fn create(shape: Shape) -> Cell {
        let ports = Ports::reserve();
        let addresses = addresses_on(&ports);
        Cell::create_at(ports, shape, &addresses)
    }

    /// Makes a cell at these addresses, and starts nothing.
    pub fn create_with(shape: Shape, addresses: &[(&str, String)]) -> Cell {
        Cell::create_at(Ports::reserve(), shape, addresses)
    }

    fn create_at(ports: Ports, shape: Shape, addresses: &[(&str, String)]) -> Cell {
        let root = tempfile::tempdir().expect("a directory");
        let pool = Pool::Made(shape.disks, shape.disk_size);
        Cell::create_in(root, ports, &pool, shape.cache, addresses).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Makes a cell in `root`, and starts nothing.
    pub fn create_in(
        root: TempDir,
        ports: Ports,
        pool: &Pool,
        cache: &str,
        addresses: &[(&str, String)],
    ) -> Result<Cell, String> {
        let dir = root.path().join("cell");
        let mut args = vec!["cell".to_owned(), "create".to_owned()];
        let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
        match pool {
            Pool::Made(disks, size) => {
                option("--disks", disks.to_string());
                option("--disk-size", (*size).to_owned());
            }
            Pool::Given(disks) => disks.iter().for_each(|d| option("--disk", d.display().to_string())),
        }
        option("--cache", cache.to_owned());
        addresses
            .iter()
            .for_each(|(name, address)| option(name, address.clone()));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        twincell_in(&dir, &args).ok()?;
        Ok(Cell {
            keeper: keeper_of(&dir),
            dir: root,
            ports,
        })
    }

    /// Makes a cell and starts both controllers; returns when it is mirrored.
    pub fn start(shape: Shape) -> Cell {
        let cell = Cell::create(shape);
        cell.twincell(&["cell", "start"]).success();
        cell.wait_until_mirrored();
        cell
    }

    /// The same on disks that fail when they are told to, in a directory of its own within `dir`.
    pub fn start_on(shelf: &Shelf, dir: &Path, cache: &str) -> Cell {
        let ports = Ports::reserve();
        let addresses = addresses_on(&ports);
        let root = tempfile::tempdir_in(dir).expect("a directory");
        let cell = Cell::create_in(root, ports, &Pool::Given(shelf.paths()), cache, &addresses).expect("a cell");
        cell.twincell(&["cell", "start"]).success();
        cell.wait_until_mirrored();
        cell
    }

    /// The ports that are reserved for this cell. It uses the first six; the fifth is where A listens for B.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where the NV memory of a controller is.
    pub fn nv_memory(&self, controller: &str) -> PathBuf {
        PathBuf::from(format!("{}-{controller}.nv", nv_memory(&self.dir())))
    }

    /// Leaves everything where it is when this goes, but for the processes and the memory.
    pub fn keep(&mut self) {
        self.dir.disable_cleanup(true);
    }

    /// The directory of the cell.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("cell")
    }

    /// A directory for what else a test needs.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// `cell.toml`.
    pub fn file(&self) -> PathBuf {
        self.dir().join("cell.toml")
    }

    /// Replaces text in `cell.toml`, which must be there.
    pub fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.file()).expect("cell.toml");
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        std::fs::write(self.file(), text.replace(from, to)).expect("cell.toml");
    }

    /// Runs a command of the operator on this cell.
    pub fn twincell(&self, args: &[&str]) -> Ended {
        twincell_in(&self.dir(), args)
    }

    /// What a command says in JSON; it must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let ended = self.twincell(&[args, &["--json"]].concat()).success();
        serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{}: {e}: {}", ended.told, ended.stdout))
    }

    /// The status, whatever it is; null if nothing came that can be read.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.twincell(&["status", "--json"]).stdout).unwrap_or(Value::Null)
    }

    /// Makes a LUN.
    #[track_caller]
    pub fn lun(&self, name: &str, size: &str, redundancy: &str) -> Value {
        self.json(&["lun", "create", name, "--size", size, "--redundancy", redundancy])["lun"].clone()
    }

    /// The iSCSI address of a LUN through controller `A` or `B`.
    pub fn iscsi_url(&self, lun: &Value, controller: &str) -> String {
        let portal = self.portal(controller, "iscsi_portals");
        format!("iscsi://{portal}/{}/{}", lun["iqn"].as_str().expect("iqn"), lun["lun"])
    }

    /// The NBD address of a LUN through controller `A` or `B`.
    pub fn nbd_url(&self, lun: &Value, controller: &str) -> String {
        format!(
            "nbd://{}/{}",
            self.portal(controller, "nbd_portals"),
            lun["name"].as_str().expect("name")
        )
    }

    /// A portal of a controller.
    pub fn portal(&self, controller: &str, protocol: &str) -> String {
        let status = self.status();
        let line = &status["controllers"][usize::from(controller == "B")];
        line[protocol][0]
            .as_str()
            .unwrap_or_else(|| panic!("no {protocol} of {controller} in {status}"))
            .to_owned()
    }

    /// The owner of the LUN called `name`.
    pub fn owner(&self, name: &str) -> String {
        wait_for(&format!("the owner of {name}"), SETTLE, || {
            let status = self.status();
            let lun = status["luns"]
                .as_array()
                .and_then(|l| l.iter().find(|l| l["name"] == name));
            lun.and_then(|l| l["owner"].as_str())
                .map(str::to_owned)
                .ok_or_else(|| status.to_string())
        })
    }

    /// Waits until both controllers serve and writes are mirrored.
    #[track_caller]
    pub fn wait_until_mirrored(&self) {
        self.wait_until("a mirrored cell", |s| {
            s["cell"]["state"] == "ok" && s["cell"]["mirroring"] == "on"
        });
    }

    /// Waits until the status is so.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, SETTLE, || {
            let status = self.status();
            if is_so(&status) {
                Ok(status)
            } else {
                Err(format!("{status}\n{}", self.logs()))
            }
        })
    }

    /// The process of a controller.
    pub fn pid(&self, controller: &str) -> Option<u32> {
        let pid = &self.status()["controllers"][usize::from(controller == "B")]["pid"];
        pid.as_u64().and_then(|p| u32::try_from(p).ok())
    }

    /// Kills a controller as `kill -9` does, and waits until its process is gone.
    #[track_caller]
    pub fn kill(&self, controller: &str) {
        let pid = self
            .pid(controller)
            .unwrap_or_else(|| panic!("{controller} does not run: {}", self.status()));
        signal(pid, Signal::KILL);
        wait_until_gone(pid);
    }

    /// Starts whichever controllers do not run, and waits until the cell is mirrored.
    #[track_caller]
    pub fn bring_back(&self) {
        self.twincell(&["cell", "start"]).success();
        self.wait_until_mirrored();
    }

    /// The ends of both logs.
    pub fn logs(&self) -> String {
        let tail = |name: &str| {
            let text = std::fs::read_to_string(self.dir().join(name).join("log")).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!(
                "--- log of {name}\n{}\n",
                lines[lines.len().saturating_sub(30)..].join("\n")
            )
        };
        tail("A") + &tail("B")
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("{}", self.logs());
        }
        self.keeper.end();
        if failed {
            // The logs and histories are small; the disks are not.
            let _ = std::fs::remove_dir_all(self.dir().join("disks"));
            self.dir.disable_cleanup(true);
            eprintln!("what is left of the cell is in {}", self.dir.path().display());
        }
    }
}

/// Ends the controllers of the cell in `dir`, and their memory.
fn keeper_of(dir: &Path) -> Keeper {
    let script = r#"
        pids=$("$1" status --json --dir "$2" | sed -n 's/.*"pid": \([0-9][0-9]*\).*/\1/p')
        [ -z "$pids" ] || kill -9 $pids
        rm -f "$3"-[AB].nv "$3"-[AB].nv.lock
    "#;
    Keeper::new(script, &[binary(), dir, Path::new(&nv_memory(dir))])
}

/// Where the NV memory of both controllers of the cell in `dir` is, up to what tells them apart.
fn nv_memory(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("cell.toml")).expect("cell.toml");
    let uuid = text
        .lines()
        .find_map(|l| l.strip_prefix("uuid = "))
        .expect("a cell has a uuid");
    let user = rustix::process::getuid().as_raw();
    format!("/dev/shm/twincell-{user}/{}", uuid.trim_matches('"'))
}

/// The options that give a new cell addresses on these ports.
pub fn addresses_on(ports: &Ports) -> [(&'static str, String); 6] {
    ADDRESSES.map(|(option, n)| (option, format!("127.0.0.1:{}", ports.get(n))))
}

/// Memory of a process that is its own, in bytes: without NV memory.
pub fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() << 10
}

/// Sends a signal to a process, which may be gone already.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let _ = kill_process(pid, signal);
}

/// Whether a process is there, and more of it than its name. A thread that still ends holds what the process had: its first
/// one may be a zombie long before.
pub fn is_alive(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|s| s.chars().next());
        !matches!(state, None | Some('Z' | 'X'))
    })
}

/// Waits until a process is gone, or nothing of it but its name.
#[track_caller]
pub fn wait_until_gone(pid: u32) {
    wait_for(&format!("the end of process {pid}"), Duration::from_secs(20), || {
        (!is_alive(pid)).then_some(()).ok_or("it is there".to_owned())
    });
}

/// Runs a command of the operator on the cell of a directory.
pub fn twincell_in(dir: &Path, args: &[&str]) -> Ended {
    let mut command = Command::new("timeout");
    command
        .arg("--kill-after=5")
        .arg(COMMAND.as_secs().to_string())
        .arg(binary())
        .args(args);
    run_command(command.env("TWINCELL_DIR", dir))
}

/// The program that is tested: `TWINCELL_BIN`, else the release build, which is made if need be.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("TWINCELL_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = [
        "build",
        "--release",
        "-p",
        "twincell",
        "--message-format=json-render-diagnostics",
    ];
    let mut command = Command::new(cargo);
    let built = run_command(
        command
            .args(args)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")),
    )
    .success();
    let messages = built
        .stdout
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let executable = messages
        .filter_map(|m| m["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.expect("the build names its executable")
}
