//! A cell in a directory of its own, and a host that speaks NBD.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::ids::Controller;
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::ManageOp;
use twincell_engine::{
    Engine, FenceChoice, Handle, HandleError, NewDisk, Outcome, Settings, Snapshot, create_disks, random_uuid,
};

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

/// The name `text`.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

/// An address below the ports that the kernel gives away.
fn free_address() -> SocketAddr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    loop {
        let n = std::process::id().wrapping_mul(97) + COUNT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], 10_000 + (n % 20_000) as u16));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

struct Running {
    handle: Handle,
    thread: JoinHandle<Outcome>,
}

/// A cell.
pub struct Cell {
    directories: [PathBuf; 2],
    settings: [Settings; 2],
    running: [Option<Running>; 2],
    handles: [Option<Handle>; 2],
}

impl Cell {
    /// A cell that was just created.
    pub fn new(name: &str, disks: usize) -> Cell {
        let unique = format!("twincell-{name}-{}", std::process::id());
        let exe = std::env::current_exe().expect("the path of this program");
        let on_disk = exe.parent().expect("its directory").join(&unique);
        let in_memory = Path::new("/dev/shm").join(&unique);
        let directories = [on_disk, in_memory];
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        directories.iter().for_each(|d| private.create(d).expect("a directory"));
        let cell = random_uuid();
        let disks: Vec<NewDisk> = (0..disks)
            .map(|i| NewDisk {
                path: directories[0].join(format!("disk{i}")),
                size_bytes: Some(64 << 20),
            })
            .collect();
        create_disks(cell, name, &disks, false).expect("disks");
        let a = Settings {
            controller: Controller::A,
            cell_name: name.into(),
            cell,
            target_name: format!("iqn.2026-11.io.twincell:{name}"),
            disks: disks.into_iter().map(|d| d.path).collect(),
            fence: FenceChoice::Kill,
            cache_bytes: 8 << 20,
            nv_memory: directories[1].join("A"),
            link: [vec![free_address()], vec![free_address()]],
            iscsi: [vec![free_address()], vec![free_address()]],
            nbd: [vec![free_address()], vec![free_address()]],
        };
        let b = Settings {
            controller: Controller::B,
            nv_memory: directories[1].join("B"),
            ..a.clone()
        };
        Cell {
            directories,
            settings: [a, b],
            running: [None, None],
            handles: [None, None],
        }
    }

    /// Starts a controller on a thread of its own.
    pub fn start(&mut self, controller: Controller) {
        let (engine, handle) = Engine::open(self.settings[controller.index()].clone()).expect("opens");
        let thread = std::thread::spawn(move || engine.run().expect("runs"));
        self.handles[controller.index()] = Some(handle.clone());
        self.running[controller.index()] = Some(Running { handle, thread });
    }

    /// Stops a controller as an operator does.
    pub fn stop(&mut self, controller: Controller) {
        let running = self.running[controller.index()].take().expect("it runs");
        let reply = running.handle.manage(ManageOp::Stop, LIMIT).expect("an answer");
        assert!(reply.is_ok(), "{reply:?}");
        let begun = Instant::now();
        while !running.thread.is_finished() {
            assert!(begun.elapsed() < LIMIT, "waited {LIMIT:?} for {controller} to stop");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(running.thread.join().expect("no panic"), Outcome::Exit);
        assert!(
            !self.settings[controller.index()].nv_memory.exists(),
            "clean NV memory was left behind"
        );
    }

    /// The way to a controller.
    pub fn handle(&self, controller: Controller) -> &Handle {
        &self.running[controller.index()].as_ref().expect("it runs").handle
    }

    /// Whether a controller that was stopped says so.
    pub fn handle_is_stopped(&self, controller: Controller) -> bool {
        let handle = self.handles[controller.index()].as_ref().expect("it ran");
        handle.snapshot().err() == Some(HandleError::Stopped)
    }

    /// Where a controller speaks NBD.
    pub fn nbd(&self, controller: Controller) -> SocketAddr {
        self.settings[0].nbd[controller.index()][0]
    }

    fn until(&self, controller: Controller, what: &str, done: impl Fn(&Snapshot) -> bool) {
        let begun = Instant::now();
        loop {
            let snapshot = self.handle(controller).snapshot().expect("a snapshot");
            if done(&snapshot) {
                return;
            }
            assert!(
                begun.elapsed() < LIMIT,
                "waited {LIMIT:?} for {what} of {controller}: {snapshot:#?}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a controller serves hosts.
    pub fn await_serving(&self, controller: Controller) {
        self.until(controller, "service", |s| {
            s.cell.role == Role::Serving && s.serving_hosts
        });
    }

    /// Waits until both serve hosts and mirror each other.
    pub fn await_mirrored(&self) {
        for controller in Controller::BOTH {
            self.until(controller, "mirroring", |s| {
                s.serving_hosts && s.cell.record.is_some_and(|r| r.mode == Mode::Both)
            });
        }
    }

    /// Makes a mirrored LUN, through A.
    pub fn create_lun(&self, lun: &str, bytes: u64) {
        let op = ManageOp::LunCreate {
            name: name(lun),
            uuid: random_uuid(),
            blocks: bytes / 512,
            redundancy: Redundancy::Vraid1,
        };
        let reply = self.handle(Controller::A).manage(op, LIMIT).expect("an answer");
        assert!(reply.is_ok(), "{reply:?}");
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.directories.iter().for_each(|d| _ = fs::remove_dir_all(d));
    }
}

/// A host that speaks NBD, one request at a time.
pub struct NbdClient(TcpStream);

impl NbdClient {
    /// Opens the export `export`.
    pub fn connect(address: SocketAddr, export: &str) -> NbdClient {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut client = NbdClient(stream);
        let greeting = client.take(18);
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle, no zeroes; then NBD_OPT_GO.
        let mut go = vec![0, 0, 0, 3];
        go.extend_from_slice(b"IHAVEOPT");
        go.extend_from_slice(&7u32.to_be_bytes());
        go.extend_from_slice(&(export.len() as u32 + 6).to_be_bytes());
        go.extend_from_slice(&(export.len() as u32).to_be_bytes());
        go.extend_from_slice(export.as_bytes());
        go.extend_from_slice(&[0, 0]);
        client.0.write_all(&go).expect("sent");
        loop {
            let head = client.take(20);
            let (kind, length) = (word(&head, 12), word(&head, 16));
            client.take(length as usize);
            match kind {
                // NBD_REP_ACK and NBD_REP_INFO.
                1 => return client,
                3 => {}
                other => panic!("the export {export} is refused: {other:#x}"),
            }
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.0.read_exact(&mut buffer).expect("an answer in time");
        buffer
    }

    fn request(&mut self, kind: u16, offset: u64, length: usize, data: &[u8]) {
        let mut request = vec![0x25, 0x60, 0x95, 0x13, 0, 0];
        request.extend_from_slice(&kind.to_be_bytes());
        request.extend_from_slice(b"a cookie");
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&(length as u32).to_be_bytes());
        request.extend_from_slice(data);
        self.0.write_all(&request).expect("sent");
        let reply = self.take(16);
        assert_eq!(
            (word(&reply, 0), word(&reply, 4)),
            (0x6744_6698, 0),
            "request {kind} at {offset} failed"
        );
        assert_eq!(&reply[8..], b"a cookie");
    }

    /// Writes `data` at byte `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        self.request(1, offset, data.len(), data);
    }

    /// Reads `length` bytes at byte `offset`.
    pub fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        self.request(0, offset, length, &[]);
        self.take(length)
    }

    /// Has everything written to disk.
    pub fn flush(&mut self) {
        self.request(3, 0, 0, &[]);
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(*bytes[at..].first_chunk().expect("long enough"))
}
