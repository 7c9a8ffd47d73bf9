//! A RAM disk served over iSCSI and NBD: the sessions of this crate with real initiators, without an array.
//!
//! `cargo run -p twincell-target --example ramdisk -- [--iscsi HOST:PORT] [--nbd HOST:PORT] [--mib N]`
//!
//! One LUN, number 0, called `ram`; the target is `iqn.2026-11.io.twincell:demo`. What a connection wants of the
//! array happens at once, in the thread of the connection.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};
use std::thread;
use twincell_core::host::{HostOp, Status};
use twincell_core::ids::{ATOMIC_BLOCKS, BLOCK_BYTES, BlockCount, Controller, NcaeIndex, Noid, Time, Uuid};
use twincell_core::layout::metadata::{Name, Redundancy};
use twincell_core::manage::LunView;
use twincell_target::iscsi::IscsiSession;
use twincell_target::nbd::NbdSession;
use twincell_target::session::{Command, Outside, Session, Tag, View};

/// What the session said that is still to be handled.
enum Todo {
    Begin(Tag, Command),
    Fetched(Tag, bool),
}

/// The array, as one connection sees it.
struct Array {
    view: Arc<View>,
    disk: Arc<Mutex<Vec<u8>>>,
    todo: VecDeque<Todo>,
    /// Writes in progress, and how many of their blocks are there.
    writes: HashMap<Tag, (Command, u32)>,
}

impl Outside for Array {
    fn view(&self) -> &View {
        &self.view
    }

    /// It stands still: nothing waits for long here.
    fn now(&self) -> Time {
        Time(0)
    }

    fn submit(&mut self, tag: Tag, command: Command) {
        self.todo.push_back(Todo::Begin(tag, command));
    }

    fn abort(&mut self, _: Tag) {
        // A command ends at once, or with the answer to its fetch.
    }

    fn data(&mut self, tag: Tag, offset: u64, bytes: &[u8]) {
        let (command, _) = self.writes[&tag];
        let start = command.start.index() * BLOCK_BYTES + offset as usize;
        self.disk.lock().expect("the disk")[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn fetched(&mut self, tag: Tag, complete: bool) {
        self.todo.push_back(Todo::Fetched(tag, complete));
    }
}

impl Array {
    fn work(&mut self, session: &mut dyn Session) {
        while let Some(todo) = self.todo.pop_front() {
            match todo {
                Todo::Begin(tag, command) => self.begin(tag, command, session),
                Todo::Fetched(tag, true) => self.fetch_next(tag, session),
                Todo::Fetched(tag, false) => {
                    self.writes.remove(&tag);
                    session.complete(tag, Status::Aborted, self);
                }
            }
        }
    }

    fn begin(&mut self, tag: Tag, command: Command, session: &mut dyn Session) {
        let blocks = self.view.luns[0].blocks;
        if command.op != HostOp::Sync && command.start.0 + u64::from(command.blocks.0) > blocks {
            return session.complete(tag, Status::OutOfRange, self);
        }
        match command.op {
            HostOp::Sync => session.complete(tag, Status::Good, self),
            HostOp::Read => {
                self.read(tag, command, session);
                session.complete(tag, Status::Good, self);
            }
            HostOp::Write { .. } => {
                self.writes.insert(tag, (command, 0));
                self.fetch_next(tag, session);
            }
        }
    }

    fn read(&mut self, tag: Tag, command: Command, session: &mut dyn Session) {
        let disk = self.disk.lock().expect("the disk");
        let start = command.start.index() * BLOCK_BYTES;
        let bytes = &disk[start..start + command.blocks.index() * BLOCK_BYTES];
        for (n, piece) in bytes.chunks(ATOMIC_BLOCKS as usize * BLOCK_BYTES).enumerate() {
            session.send_data(tag, BlockCount(n as u32 * ATOMIC_BLOCKS), piece);
        }
    }

    fn fetch_next(&mut self, tag: Tag, session: &mut dyn Session) {
        let Some((command, fetched)) = self.writes.get_mut(&tag) else {
            return;
        };
        let (offset, blocks) = (*fetched, (command.blocks.0 - *fetched).min(ATOMIC_BLOCKS));
        if blocks == 0 {
            self.writes.remove(&tag);
            return session.complete(tag, Status::Good, self);
        }
        *fetched += blocks;
        session.fetch(tag, BlockCount(offset), BlockCount(blocks), self);
    }
}

fn serve(mut stream: TcpStream, mut session: impl Session, mut array: Array) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 256 * 1024];
    while !session.is_over() {
        stream.write_all(session.output())?;
        session.output().clear();
        let received = stream.read(&mut buffer)?;
        if received == 0 {
            break;
        }
        let mut rest = &buffer[..received];
        while !rest.is_empty() && !session.is_over() {
            rest = &rest[session.receive(rest, &mut array)..];
            array.work(&mut session);
            stream.write_all(session.output())?;
            session.output().clear();
        }
    }
    stream.write_all(session.output())?;
    session.disconnected(&mut array);
    array.work(&mut session);
    Ok(())
}

fn listen<S>(address: &str, view: &Arc<View>, disk: &Arc<Mutex<Vec<u8>>>, session: impl Fn(u16) -> S)
where
    S: Session + Send + 'static,
{
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    println!("listening on {address}");
    for (number, stream) in listener.incoming().enumerate() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                eprintln!("accept: {error}");
                continue;
            }
        };
        let session = session(number as u16);
        let array = Array {
            view: Arc::clone(view),
            disk: Arc::clone(disk),
            todo: VecDeque::new(),
            writes: HashMap::new(),
        };
        thread::spawn(move || {
            if let Err(error) = serve(stream, session, array) {
                eprintln!("connection {number}: {error}");
            }
        });
    }
}

fn main() {
    let (mut iscsi, mut nbd, mut mib) = ("127.0.0.1:3260".to_owned(), "127.0.0.1:10809".to_owned(), 64);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--iscsi" => iscsi = value,
            "--nbd" => nbd = value,
            "--mib" => mib = value.parse().expect("a number of MiB"),
            _ => panic!("unknown option {name}"),
        }
    }
    let view = Arc::new(View {
        controller: Controller::A,
        cell_name: "demo".to_owned(),
        target_name: "iqn.2026-11.io.twincell:demo".to_owned(),
        portals: [vec![iscsi.clone()], vec![]],
        luns: vec![LunView {
            ncae: NcaeIndex(0),
            noid: Noid(1),
            name: Name::new("ram").expect("a name"),
            uuid: Uuid(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8),
            blocks: mib * 2048,
            redundancy: Redundancy::None,
            owner: Controller::A,
            moving: false,
        }],
        luns_generation: 1,
        paths_generation: 1,
        partner_in: true,
    });
    let disk = Arc::new(Mutex::new(vec![0; mib as usize * 1024 * 1024]));
    let (nbd_view, nbd_disk) = (Arc::clone(&view), Arc::clone(&disk));
    thread::spawn(move || listen(&nbd, &nbd_view, &nbd_disk, |_| NbdSession::new()));
    let handle = |number: u16| NonZeroU16::new(number % 0xffff + 1).unwrap_or(NonZeroU16::MIN);
    listen(&iscsi, &view, &disk, |number| IscsiSession::new(handle(number)));
}
