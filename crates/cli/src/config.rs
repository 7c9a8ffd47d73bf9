//! `cell.toml`: where a cell's disks, addresses and directories are. The same file serves both controllers.

use crate::exit::{Code, Failure, Result};
use crate::size::Size;
use rustix::fs::{Access, access, statfs};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use twincell_core::ids::{BUFFER_BYTES, Controller, Uuid};
use twincell_core::link::path::PATHS_MAX;
use twincell_engine::{FenceChoice, NotPrivate, PrivateDir, Settings};
use twincell_wire::nv::BUFFERS_MAX;

/// The version of this file that this binary reads and writes.
pub const FORMAT: u32 = 1;
/// The name of the file in a cell's directory.
pub const FILE_NAME: &str = "cell.toml";
/// Where the cell of this machine is, where nothing else is said.
const DEFAULT_FILE: &str = "/etc/twincell/cell.toml";
/// The smallest cache of a controller. What one disk may hold of a pair leaves room there for the largest atomic write.
pub const CACHE_MIN: u64 = 2 << 20;
/// The largest: half of it is for each of the two segment pairs, which have at most so many buffers.
pub const CACHE_MAX: u64 = 2 * BUFFERS_MAX as u64 * BUFFER_BYTES as u64;
/// The most disks of a cell.
pub const DISKS_MAX: usize = 240;
/// The longest name of a cell.
const NAME_MAX: usize = 64;
/// The longest iSCSI name (RFC 7143, section 4.2.7.1).
const TARGET_MAX: usize = 223;
/// The magic number of tmpfs (`statfs(2)`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    name: String,
    uuid: String,
    target: String,
    cache: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fence: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watchdog: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    accept_window: bool,
    disks: Vec<PathBuf>,
    controller: Controllers,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Controllers {
    #[serde(rename = "A")]
    a: Section,
    #[serde(rename = "B")]
    b: Section,
}

/// What the file says of one controller. Paths are relative to the file's directory, or absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Section {
    /// `HOST:PORT` of the link, one for each path to the partner: the n-th of A and the n-th of B are its ends. A listens
    /// there, B connects from there.
    pub link: Vec<String>,
    /// `HOST:PORT` of each iSCSI portal.
    pub iscsi: Vec<String>,
    /// `HOST:PORT` of each NBD portal.
    pub nbd: Vec<String>,
    /// The control socket; its directory also has the lock and the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<PathBuf>,
    /// The directory of the NV memory, on tmpfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nv_memory: Option<PathBuf>,
}

/// A cell's configuration, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellConfig {
    /// Where it was read from, absolute.
    pub file: PathBuf,
    /// The cell's name.
    pub name: String,
    /// The cell's identity.
    pub uuid: Uuid,
    /// The iSCSI target name.
    pub target: String,
    /// Bytes of cache of each controller.
    pub cache: Size,
    /// How a partner that is out is kept out.
    pub fence: FenceChoice,
    /// The disks, absolute.
    pub disks: Vec<PathBuf>,
    controllers: [Section; 2],
}

/// The name of a controller as the command line has it.
pub fn controller_named(text: &str) -> std::result::Result<Controller, String> {
    match text {
        "A" | "a" => Ok(Controller::A),
        "B" | "b" => Ok(Controller::B),
        _ => Err(format!("{text:?} is not a controller: there are A and B")),
    }
}

/// The file to use: what the command line says, else `TWINCELL_DIR`, else the default cell.
pub fn locate(dir: Option<&Path>, config: Option<&Path>) -> Result<PathBuf> {
    if let Some(file) = config {
        return Ok(file.to_owned());
    }
    if let Some(dir) = dir.map(Path::to_owned).or_else(dir_of_environment) {
        return Ok(dir.join(FILE_NAME));
    }
    let default = PathBuf::from(DEFAULT_FILE);
    if default.exists() {
        return Ok(default);
    }
    Err(Failure::new(
        Code::NotFound,
        format!("no cell is named, and there is no {DEFAULT_FILE}"),
    )
    .next("name one with --dir DIR, --config FILE or TWINCELL_DIR; `twincell cell create --dir DIR` makes one"))
}

/// `TWINCELL_DIR`, if it is set and not empty.
pub fn dir_of_environment() -> Option<PathBuf> {
    std::env::var_os("TWINCELL_DIR")
        .filter(|d| !d.is_empty())
        .map(PathBuf::from)
}

impl CellConfig {
    /// Puts a configuration together from its parts and checks it.
    pub fn new(
        file: PathBuf,
        name: String,
        uuid: Uuid,
        cache: Size,
        disks: Vec<PathBuf>,
        controllers: [Section; 2],
    ) -> Result<CellConfig> {
        let target = format!("iqn.2026-11.io.twincell:{name}");
        let config = CellConfig {
            file,
            name,
            uuid,
            target,
            cache,
            fence: FenceChoice::Kill,
            disks,
            controllers,
        };
        config.check()?;
        Ok(config)
    }

    /// Reads and checks the file.
    pub fn load(file: &Path) -> Result<CellConfig> {
        let file = std::path::absolute(file).map_err(|e| Failure::io("find", file.display(), &e))?;
        let text = std::fs::read_to_string(&file).map_err(|e| {
            let failure = Failure::io("read", file.display(), &e);
            match e.kind() {
                std::io::ErrorKind::NotFound => {
                    failure.next("is this the directory of a cell? `twincell cell create --dir DIR` makes one")
                }
                _ => failure,
            }
        })?;
        Self::parse(file.clone(), &text).map_err(|mut failure| {
            failure.what = format!("{}: {}", file.display(), failure.what);
            failure
        })
    }

    /// Reads the text of `file`, and checks it.
    pub fn parse(file: PathBuf, text: &str) -> Result<CellConfig> {
        let parsed: File = toml::from_str(text).map_err(|e| Failure::usage(e.to_string().trim_end().to_owned()))?;
        if parsed.format != FORMAT {
            return Err(Failure::usage(format!(
                "format = {}, and this twincell knows format {FORMAT}",
                parsed.format
            ))
            .next("use the twincell that wrote the file, or a newer one"));
        }
        let wrong = |key: &str, why: String| Failure::usage(format!("{key}: {why}"));
        let base = file.parent().unwrap_or(Path::new("/"));
        let config = CellConfig {
            name: parsed.name,
            uuid: parse_uuid(&parsed.uuid).ok_or_else(|| wrong("uuid", format!("{:?} is not a UUID", parsed.uuid)))?,
            target: parsed.target,
            cache: parsed.cache.parse().map_err(|e| wrong("cache", e))?,
            fence: fence(parsed.fence.as_deref(), parsed.watchdog, parsed.accept_window)?,
            disks: parsed.disks.iter().map(|d| base.join(d)).collect(),
            controllers: [parsed.controller.a, parsed.controller.b],
            file,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let wrong = |key: &str, why: String| Err(Failure::usage(format!("{key}: {why}")));
        if let Err(why) = check_name(&self.name) {
            return wrong("name", why);
        }
        if self.uuid.is_nil() {
            return wrong("uuid", "all zero is no identity".to_owned());
        }
        let iqn = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
        if !self.target.starts_with("iqn.") || self.target.len() > TARGET_MAX || !self.target.chars().all(iqn) {
            return wrong(
                "target",
                format!("{:?} is not an iSCSI qualified name in lower case", self.target),
            );
        }
        if !(CACHE_MIN..=CACHE_MAX).contains(&self.cache.0) {
            return wrong(
                "cache",
                format!(
                    "{} is not between {} and {}",
                    self.cache,
                    Size(CACHE_MIN),
                    Size(CACHE_MAX)
                ),
            );
        }
        if !(1..=DISKS_MAX).contains(&self.disks.len()) {
            return wrong(
                "disks",
                format!("{} disks; a cell has 1 to {DISKS_MAX}", self.disks.len()),
            );
        }
        if let Some(twice) = first_repeated(&self.disks) {
            return wrong("disks", format!("{} is named twice", twice.display()));
        }
        self.check_addresses()
    }

    fn check_addresses(&self) -> Result<()> {
        let mut all = Vec::new();
        for controller in Controller::BOTH {
            let section = self.section(controller);
            for (key, addresses) in [
                ("link", &section.link),
                ("iscsi", &section.iscsi),
                ("nbd", &section.nbd),
            ] {
                let key = format!("controller.{controller}.{key}");
                if addresses.is_empty() {
                    return Err(Failure::usage(format!("{key}: at least one HOST:PORT is needed")));
                }
                for address in addresses {
                    check_address(address).map_err(|why| Failure::usage(format!("{key}: {why}")))?;
                    all.push(address.clone());
                }
            }
        }
        let [a, b] = &self.controllers;
        if a.link.len() != b.link.len() {
            return Err(Failure::usage(format!(
                "controller.A.link has {} addresses and controller.B.link {}: each path has two ends",
                a.link.len(),
                b.link.len()
            )));
        }
        if a.link.len() > PATHS_MAX {
            return Err(Failure::usage(format!(
                "controller.A.link: {} addresses; a link has 1 to {PATHS_MAX} paths",
                a.link.len()
            )));
        }
        match first_repeated(&all) {
            Some(twice) => Err(Failure::usage(format!(
                "{twice} is given to two things; each needs an address or a port of its own"
            ))),
            None => Ok(()),
        }
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let base = self.dir();
        let file = File {
            format: FORMAT,
            name: self.name.clone(),
            uuid: self.uuid.to_string(),
            target: self.target.clone(),
            cache: self.cache.exact(),
            fence: match &self.fence {
                FenceChoice::Kill => None,
                FenceChoice::Pr => Some("pr".to_owned()),
                FenceChoice::Own { .. } => Some("self".to_owned()),
            },
            watchdog: match &self.fence {
                FenceChoice::Own { watchdog } => watchdog.clone(),
                _ => None,
            },
            accept_window: matches!(self.fence, FenceChoice::Own { watchdog: None }),
            disks: self
                .disks
                .iter()
                .map(|d| d.strip_prefix(base).unwrap_or(d).to_owned())
                .collect(),
            controller: Controllers {
                a: self.controllers[0].clone(),
                b: self.controllers[1].clone(),
            },
        };
        let body = toml::to_string(&file).expect("our own structure is TOML");
        format!("# A twincell. The same file serves both controllers; LUNs are not here but on the disks.\n{body}")
    }

    /// The directory that relative paths start from.
    pub fn dir(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
    }

    /// What the file says of a controller.
    pub fn section(&self, controller: Controller) -> &Section {
        &self.controllers[controller.index()]
    }

    /// A controller's control socket.
    pub fn control(&self, controller: Controller) -> PathBuf {
        match &self.section(controller).control {
            Some(path) => self.dir().join(path),
            None => self.dir().join(controller.to_string()).join("control.sock"),
        }
    }

    /// A controller's own directory: control socket, lock and log.
    pub fn controller_dir(&self, controller: Controller) -> PathBuf {
        self.control(controller).parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// A controller's log.
    pub fn log(&self, controller: Controller) -> PathBuf {
        self.controller_dir(controller).join("log")
    }

    /// The file of a controller's NV memory.
    pub fn nv_memory(&self, controller: Controller) -> Result<PathBuf> {
        let dir = match &self.section(controller).nv_memory {
            Some(dir) => self.dir().join(dir),
            None => default_nv_directory()?,
        };
        Ok(dir.join(format!("{}-{controller}.nv", self.uuid)))
    }

    /// The directory of a controller's NV memory, made if it is not there. It is private and on tmpfs, or this is refused: in
    /// words here, and by the engine again of what it has opened.
    pub fn prepare_nv_directory(&self, controller: Controller) -> Result<()> {
        let file = self.nv_memory(controller)?;
        let dir = file.parent().unwrap_or(Path::new("/"));
        make_private_dir(dir)?;
        if !is_tmpfs(dir) {
            return Err(
                Failure::new(Code::Refused, format!("NV memory in {} is not on tmpfs", dir.display())).next(
                    "an ordinary file's pages reach its disk in any order; \
                 set nv_memory of the controller in cell.toml to a directory on tmpfs",
                ),
            );
        }
        Ok(())
    }

    /// What the engine is told.
    pub fn settings(&self, controller: Controller) -> Result<Settings> {
        let addresses = |of: fn(&Section) -> &Vec<String>| -> Result<[Vec<SocketAddr>; 2]> {
            Ok([
                resolve_all(of(&self.controllers[0]))?,
                resolve_all(of(&self.controllers[1]))?,
            ])
        };
        Ok(Settings {
            controller,
            cell_name: self.name.clone(),
            cell: self.uuid,
            target_name: self.target.clone(),
            disks: self.disks.clone(),
            fence: self.fence.clone(),
            cache_bytes: self.cache.0,
            nv_memory: self.nv_memory(controller)?,
            link: addresses(|s| &s.link)?,
            iscsi: addresses(|s| &s.iscsi)?,
            nbd: addresses(|s| &s.nbd)?,
        })
    }
}

/// The fence that the file chooses (DESIGN section 6, rule R5).
fn fence(kind: Option<&str>, watchdog: Option<PathBuf>, accept_window: bool) -> Result<FenceChoice> {
    let wrong = |key: &str, why: &str| Err(Failure::usage(format!("{key}: {why}")));
    match (kind.unwrap_or("kill"), watchdog, accept_window) {
        ("kill", None, false) => Ok(FenceChoice::Kill),
        ("pr", None, false) => Ok(FenceChoice::Pr),
        ("kill" | "pr", Some(_), _) => wrong("watchdog", "only fence = \"self\" has one"),
        ("kill" | "pr", None, true) => wrong("accept_window", "only fence = \"self\" has a window"),
        ("self", Some(_), true) => wrong("accept_window", "with a watchdog there is none to accept"),
        ("self", None, false) => Err(Failure::usage(
            "fence = \"self\": a controller that hangs must be reset by a watchdog, or its last write may land late",
        )
        .next(
            "watchdog = \"/dev/watchdog\" names one; accept_window = true accepts that, outside of what is promised",
        )),
        ("self", watchdog, _) => Ok(FenceChoice::Own { watchdog }),
        (other, ..) => wrong("fence", &format!("{other:?} is not a fence: kill, pr or self")),
    }
}

/// Makes a directory that only its owner may enter. One that is there stays as it is, and must be the owner's: somebody else
/// could have links in it, to files that are then written to.
pub fn make_private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |e: &std::io::Error| Failure::io("make the directory", dir.display(), e);
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| failed(&e))?;
    match PrivateDir::open(dir) {
        Ok(_) => Ok(()),
        Err(NotPrivate::Io(e)) => Err(failed(&e)),
        Err(NotPrivate::Refused(why)) => {
            let what = format!("{} is no place for the files of a controller: {why}", dir.display());
            Err(Failure::new(Code::Refused, what).next(
                "have the user who runs the controller own it, with mode 0700, or remove it; or name another in cell.toml: \
                 `control` has the socket, `nv_memory` the NV memory",
            ))
        }
    }
}

fn is_tmpfs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|s| s.f_type as u64 == TMPFS_MAGIC)
}

/// `/dev/shm/twincell-UID` if that is tmpfs, else `XDG_RUNTIME_DIR`.
fn default_nv_directory() -> Result<PathBuf> {
    let shm = Path::new("/dev/shm");
    if is_tmpfs(shm) && access(shm, Access::WRITE_OK | Access::EXEC_OK).is_ok() {
        return Ok(shm.join(format!("twincell-{}", rustix::process::getuid().as_raw())));
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|d| is_tmpfs(d));
    runtime.map(|d| d.join("twincell")).ok_or_else(|| {
        Failure::new(
            Code::Refused,
            "there is no tmpfs for NV memory: neither /dev/shm nor XDG_RUNTIME_DIR is one",
        )
        .next("set nv_memory of each controller in cell.toml to a directory on tmpfs")
    })
}

/// Checks the name of a cell: it is a part of the iSCSI target name.
pub fn check_name(name: &str) -> std::result::Result<(), String> {
    let ordinary = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_MAX && name.chars().all(ordinary) {
        return Ok(());
    }
    Err(format!(
        "{name:?} is not the name of a cell: 1 to {NAME_MAX} lower-case letters, digits, `-` and `.`, a letter or digit first"
    ))
}

/// Checks a `HOST:PORT`, without looking the host up.
pub fn check_address(address: &str) -> std::result::Result<(), String> {
    let form = || format!("{address:?} is not HOST:PORT");
    let (host, port) = address.rsplit_once(':').ok_or_else(form)?;
    let host_is_plain = !host.is_empty() && !host.contains([':', '/', ' ']);
    let host_is_v6 = host.starts_with('[') && host.ends_with(']') && address.parse::<SocketAddr>().is_ok();
    if !host_is_plain && !host_is_v6 {
        return Err(form());
    }
    if !matches!(port.parse::<u16>(), Ok(1..)) {
        return Err(format!("{address:?}: the port must be 1 to 65535"));
    }
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
    check_reachable(address, ip.ok())
}

/// Each address is told to others as it is: hosts are given the portals of both controllers, and B connects to the link of A.
/// One that stands for every address of a machine would lead each of them to itself.
fn check_reachable(address: &str, ip: Option<IpAddr>) -> std::result::Result<(), String> {
    match ip {
        Some(ip) if ip.to_canonical().is_unspecified() => Err(format!(
            "{address:?} is every address of a machine, and none that it can be reached at: name the one that hosts, or the \
             other controller, connect to"
        )),
        _ => Ok(()),
    }
}

fn resolve_all(addresses: &[String]) -> Result<Vec<SocketAddr>> {
    addresses.iter().map(|a| resolve(a)).collect()
}

/// The socket address of a `HOST:PORT`.
pub fn resolve(address: &str) -> Result<SocketAddr> {
    let found = address
        .to_socket_addrs()
        .map_err(|e| Failure::io("look up", address, &e))?
        .next();
    let found = found.ok_or_else(|| Failure::new(Code::NotFound, format!("{address} has no address")))?;
    check_reachable(address, Some(found.ip())).map_err(Failure::usage)?;
    Ok(found)
}

/// The UUID that is written so.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|g| g.len());
    if !lengths.eq([8, 4, 4, 4, 12]) || !groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit())) {
        return None;
    }
    u128::from_str_radix(&groups.concat(), 16).ok().map(Uuid)
}

fn first_repeated<T: Ord>(all: &[T]) -> Option<&T> {
    let mut sorted: Vec<&T> = all.iter().collect();
    sorted.sort();
    sorted.windows(2).find(|w| w[0] == w[1]).map(|w| w[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use twincell_core::config::Geometry;
    use twincell_wire::nv::NvLayout;

    fn section(n: u16) -> Section {
        let on = |port: u16| vec![format!("127.0.0.1:{}", port + n)];
        Section {
            link: on(7000),
            iscsi: on(3260),
            nbd: on(10809),
            control: None,
            nv_memory: None,
        }
    }

    fn example() -> CellConfig {
        let file = PathBuf::from("/cells/demo/cell.toml");
        let disks = vec![
            "/cells/demo/disks/0".into(),
            "/dev/sdz".into(),
            "/cells/demo/disks/2".into(),
        ];
        CellConfig::new(
            file,
            "demo".into(),
            Uuid(7),
            Size(64 << 20),
            disks,
            [section(0), section(1)],
        )
        .unwrap()
    }

    #[test]
    fn a_fence_is_chosen_and_a_window_is_accepted_by_name() {
        let text = example().to_text();
        let with = |lines: &str| {
            let text = text.replace("disks = [", &format!("{lines}\ndisks = ["));
            CellConfig::parse("/cells/demo/cell.toml".into(), &text)
        };
        for (lines, fence) in [
            ("", FenceChoice::Kill),
            ("fence = \"kill\"", FenceChoice::Kill),
            ("fence = \"pr\"", FenceChoice::Pr),
            (
                "fence = \"self\"\naccept_window = true",
                FenceChoice::Own { watchdog: None },
            ),
            (
                "fence = \"self\"\nwatchdog = \"/dev/watchdog\"",
                FenceChoice::Own {
                    watchdog: Some("/dev/watchdog".into()),
                },
            ),
        ] {
            let config = with(lines).unwrap();
            assert_eq!(config.fence, fence);
            let again = CellConfig::parse(config.file.clone(), &config.to_text()).unwrap();
            assert_eq!(again, config);
        }
        for (lines, why) in [
            ("fence = \"hope\"", "hope"),
            ("fence = \"self\"", "watchdog"),
            ("accept_window = true", "accept_window"),
            ("fence = \"pr\"\nwatchdog = \"/dev/watchdog\"", "watchdog"),
            (
                "fence = \"self\"\nwatchdog = \"/dev/watchdog\"\naccept_window = true",
                "accept_window",
            ),
        ] {
            let failure = with(lines).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.what.contains(why), "{}", failure.what);
        }
    }

    #[test]
    fn the_file_says_what_the_configuration_was() {
        let config = example();
        let text = config.to_text();
        assert!(text.contains("\"disks/0\", \"/dev/sdz\""), "{text}");
        assert_eq!(CellConfig::parse(config.file.clone(), &text).unwrap(), config);
    }

    #[test]
    fn an_error_names_the_key() {
        let text = example().to_text();
        for (from, to, named) in [
            ("name = \"demo\"", "name = \"De mo\"", "name"),
            ("format = 1", "format = 2", "format"),
            ("format = 1", "format = 1\ncolour = 3", "colour"),
            ("cache = \"64M\"", "cache = \"64K\"", "cache"),
            ("cache = \"64M\"", "cache = \"129G\"", "between 2M and 128G"),
            ("cache = \"64M\"", "cache = \"lots\"", "cache"),
            ("\"disks/0\"", "\"disks/2\"", "disks"),
            ("127.0.0.1:3261", "127.0.0.1:0", "controller.B.iscsi"),
            ("127.0.0.1:3261", "127.0.0.1", "controller.B.iscsi"),
            ("127.0.0.1:3261", "127.0.0.1:3260", "127.0.0.1:3260"),
            ("127.0.0.1:3261", "0.0.0.0:3260", "every address of a machine"),
            ("127.0.0.1:10809", "[::]:10809", "controller.A.nbd"),
            ("127.0.0.1:7001", "0.0.0.0:7001", "controller.B.link"),
            ("[\"127.0.0.1:7001\"]", "[]", "controller.B.link"),
            ("uuid = \"0", "uuid = \"x", "uuid"),
            ("target = \"iqn", "target = \"Iqn", "target"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let failure = CellConfig::parse("/cells/demo/cell.toml".into(), &changed).unwrap_err();
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.what.contains(named), "{from} -> {to}: {failure}");
        }
    }

    /// What is taken when a cell is made can be laid out when it starts.
    #[test]
    fn the_largest_cache_has_a_layout() {
        for cache in [CACHE_MIN, CACHE_MAX] {
            let geometry = Geometry::for_cache(cache);
            let layout = NvLayout::of(&geometry);
            let halves = u64::from(layout.buffers) * BUFFER_BYTES as u64;
            assert_eq!(halves, cache, "{geometry:?}");
            assert!(layout.bytes > cache);
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:3260", "localhost:1", "[::1]:65535", "array-a.example:3260"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":3260",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "::1:3260",
            "host:-1",
            "a b:3",
            "0.0.0.0:3260",
            "[::]:3260",
            "[0:0::0]:3260",
            "[::ffff:0.0.0.0]:3260",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
        // As the system reads it, that is 0.0.0.0; a host's name may say the same.
        assert_eq!(resolve("0:3260").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn uuids_are_read_as_they_are_written() {
        let uuid = Uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(parse_uuid(&uuid.to_string()), Some(uuid));
        for bad in [
            "",
            "0123",
            "0123456789abcdef0123456789abcdef",
            "g1234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert_eq!(parse_uuid(bad), None, "{bad}");
        }
    }
}
