//! An NBD server for tests: the array's own [`NbdSession`] over TCP, with memory in place of the array, and faults.
#![allow(dead_code)] // Each test program uses a part of it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command as Process};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use twincell_client::Url;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{BlockCount, Controller, NcaeIndex, Noid, Time, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;
use twincell_target::nbd::NbdSession;
use twincell_target::session::{Command, Outside, Session, Tag, View};

/// What an array may do wrong, or at least awkwardly. It happens to the n-th command of the server that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Every n-th command ends the connection, half of them after they took effect.
    Disconnect(u64),
    /// Every n-th write takes effect only in its first half, then the connection ends.
    Tear(u64),
    /// Every n-th write is acknowledged without effect.
    Lose(u64),
    /// Every n-th read returns what the blocks held some time ago.
    Stale(u64),
    /// Every n-th write lands one block too far.
    Misdirect(u64),
    /// Every n-th write ends the connection, and takes effect 100 ms after that.
    Late(u64),
    /// No command is answered.
    Silent,
}

/// The blocks, shared by all servers of a LUN.
#[derive(Clone)]
pub struct Medium(Arc<Mutex<Blocks>>);

struct Blocks {
    now: Vec<u8>,
    before: Vec<u8>,
}

impl Medium {
    pub fn new(bytes: usize) -> Medium {
        Medium(Arc::new(Mutex::new(Blocks {
            now: vec![0; bytes],
            before: vec![0; bytes],
        })))
    }
}

/// A server; it runs until the process ends.
pub struct Server {
    pub address: String,
    commands: Arc<AtomicU64>,
}

impl Server {
    pub fn start(medium: &Medium, fault: Fault) -> Server {
        Server::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), medium, fault)
    }

    pub fn start_on(listener: TcpListener, medium: &Medium, fault: Fault) -> Server {
        let address = listener.local_addr().unwrap().to_string();
        let commands = Arc::new(AtomicU64::new(0));
        let (medium, counter) = (medium.clone(), Arc::clone(&commands));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = Connection::new(stream.unwrap(), medium.clone(), fault, Arc::clone(&counter));
                std::thread::spawn(move || connection.serve());
            }
        });
        Server { address, commands }
    }

    pub fn url(&self) -> Url {
        format!("nbd://{}/vol", self.address).parse().unwrap()
    }

    /// How many commands the server has seen.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

/// What the session did, to be carried out after it returned.
struct Queue {
    view: View,
    commands: Vec<(Tag, Command)>,
    /// Data of writes as far as they have come.
    data: HashMap<Tag, Vec<u8>>,
    /// Writes whose data are all here.
    fetched: Vec<Tag>,
}

impl Outside for Queue {
    fn view(&self) -> &View {
        &self.view
    }

    /// It stands still: nothing waits for long here.
    fn now(&self) -> Time {
        Time(0)
    }

    fn submit(&mut self, tag: Tag, command: Command) {
        self.commands.push((tag, command));
    }

    fn abort(&mut self, _: Tag) {}

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        let data = self.data.entry(tag).or_default();
        assert_eq!(data.len() as u64, offset);
        data.extend_from_slice(bytes);
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        assert!(complete);
        self.fetched.push(tag);
    }
}

struct Connection {
    stream: TcpStream,
    session: NbdSession,
    queue: Queue,
    /// Writes whose data are still coming.
    writes: HashMap<Tag, Command>,
    medium: Medium,
    fault: Fault,
    counter: Arc<AtomicU64>,
}

/// The connection is to end now.
struct End;

impl Connection {
    fn new(stream: TcpStream, medium: Medium, fault: Fault, counter: Arc<AtomicU64>) -> Connection {
        stream.set_nodelay(true).unwrap();
        let blocks = medium.0.lock().unwrap().now.len() as u64 / 512;
        let lun = LunView {
            ncae: NcaeIndex(0),
            noid: Noid(1),
            name: Name::new("vol").unwrap(),
            uuid: Uuid(1),
            blocks,
            redundancy: Redundancy::Vraid1,
            owner: Controller::A,
            moving: false,
        };
        let view = View {
            controller: Controller::A,
            cell_name: "test".into(),
            target_name: "iqn.2026-11.io.twincell:test".into(),
            portals: [vec![], vec![]],
            luns: vec![lun],
            luns_generation: 1,
            paths_generation: 1,
            partner_in: true,
        };
        let queue = Queue {
            view,
            commands: vec![],
            data: HashMap::new(),
            fetched: vec![],
        };
        Connection {
            stream,
            session: NbdSession::new(),
            queue,
            writes: HashMap::new(),
            medium,
            fault,
            counter,
        }
    }

    fn serve(mut self) {
        let mut buffer = vec![0; 256 << 10];
        loop {
            let output = std::mem::take(self.session.output());
            if self.stream.write_all(&output).is_err() || self.session.is_over() {
                break;
            }
            let length = match self.stream.read(&mut buffer) {
                Ok(length) if length > 0 => length,
                _ => break,
            };
            let taken = self.session.receive(&buffer[..length], &mut self.queue);
            assert_eq!(taken, length, "no test asks for more than there is room for");
            if self.work().is_err() {
                break;
            }
        }
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Carries out what can be carried out: writes when their data are here.
    fn work(&mut self) -> Result<(), End> {
        while !self.queue.commands.is_empty() || !self.queue.fetched.is_empty() {
            for (tag, command) in std::mem::take(&mut self.queue.commands) {
                if matches!(command.op, HostOp::Write { .. }) {
                    self.writes.insert(tag, command);
                    self.session.fetch(tag, BlockCount(0), command.blocks, &mut self.queue);
                } else {
                    self.carry_out(tag, &command)?;
                }
            }
            for tag in std::mem::take(&mut self.queue.fetched) {
                let command = self.writes.remove(&tag).unwrap();
                self.carry_out(tag, &command)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, tag: Tag, command: &Command) -> Result<(), End> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fault == Fault::Silent {
            return Ok(());
        }
        let hit = |n: u64| number.is_multiple_of(n);
        let after = match self.fault {
            Fault::Disconnect(n) if hit(n) && hit(2 * n) => return Err(End),
            Fault::Disconnect(n) if hit(n) => Err(End),
            _ => Ok(()),
        };
        let from = command.start.0 as usize * 512;
        let to = from + command.blocks.index() * 512;
        if to > self.medium.0.lock().unwrap().now.len() {
            self.queue.data.remove(&tag);
            self.session.complete(tag, Status::OutOfRange, &mut self.queue);
            return Ok(());
        }
        match command.op {
            HostOp::Read => {
                let medium = self.medium.0.lock().unwrap();
                let stale = matches!(self.fault, Fault::Stale(n) if hit(n));
                let source = if stale { &medium.before } else { &medium.now };
                self.session.send_data(tag, BlockCount(0), &source[from..to]);
            }
            HostOp::Write { .. } => {
                let data = self.queue.data.remove(&tag).unwrap();
                self.write(from, data, &hit)?;
            }
            HostOp::Sync => {}
        }
        after?;
        self.session.complete(tag, Status::Good, &mut self.queue);
        Ok(())
    }

    fn write(&self, from: usize, mut data: Vec<u8>, hit: &dyn Fn(u64) -> bool) -> Result<(), End> {
        let mut from = from;
        let mut result = Ok(());
        match self.fault {
            Fault::Lose(n) if hit(n) => return Ok(()),
            Fault::Tear(n) if hit(n) && data.len() > 512 => {
                data.truncate(data.len() / 1024 * 512);
                result = Err(End);
            }
            Fault::Misdirect(n) if hit(n) => from += 512,
            Fault::Late(n) if hit(n) => {
                let medium = self.medium.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(100));
                    put(&medium, from, &data);
                });
                return Err(End);
            }
            _ => {}
        }
        put(&self.medium, from, &data);
        result
    }
}

fn put(medium: &Medium, from: usize, data: &[u8]) {
    let mut medium = medium.0.lock().unwrap();
    let to = (from + data.len()).min(medium.now.len());
    let Blocks { now, before } = &mut *medium;
    before[from..to].copy_from_slice(&now[from..to]);
    now[from..to].copy_from_slice(&data[..to - from]);
}

/// A process that ends with the test.
pub struct Daemon(pub Child);

impl Daemon {
    pub fn start(program: &str, args: &[&str]) -> Daemon {
        let child = Process::new(program).args(args).spawn();
        Daemon(child.unwrap_or_else(|e| panic!("{program} must be installed for this test: {e}")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end and returns what it said; it must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Process::new(program).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{program} must be installed for this test: {e}"));
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {args:?}: {}\n{said}", output.status);
    said
}

/// A TCP port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `condition` gives something; `what` is it that is waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
