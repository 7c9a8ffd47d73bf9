//! A proxy on the link between the controllers, which does to it what networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that are passed on at a time.
const CHUNK: usize = 256 << 10;

/// A direction on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From B to A: A listens, B connects.
    ToA,
    /// From A to B.
    ToB,
}

impl Way {
    /// Both.
    pub const BOTH: [Way; 2] = [Way::ToA, Way::ToB];

    fn index(self) -> usize {
        match self {
            Way::ToA => 0,
            Way::ToB => 1,
        }
    }
}

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Treatment {
    /// Nothing is read, nor passed on. What was sent waits, here and in the sender's socket.
    held: bool,
    /// Everything is read, and nothing passed on.
    swallowed: bool,
    /// Each piece is passed on so much later.
    delay: Duration,
    /// The bit with this number, modulo its length, of the next piece is flipped.
    garble: Option<u64>,
}

#[derive(Default)]
struct State {
    ways: [Treatment; 2],
    /// Connections are closed as soon as they are made.
    cut: bool,
    connections: Vec<Arc<Connection>>,
    /// Bits that were flipped.
    garbled: u64,
}

struct Connection {
    /// By the direction that is written to it: the socket to A, the socket to B.
    ends: [TcpStream; 2],
    over: AtomicBool,
    /// One direction has ended.
    half: AtomicBool,
}

impl Connection {
    /// One direction has ended in good order.
    fn end_half(&self, way: Way) {
        // It may be closed already.
        let _ = self.ends[way.index()].shutdown(Shutdown::Write);
        if self.half.swap(true, Ordering::Relaxed) {
            self.close();
        }
    }

    fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
        for end in &self.ends {
            // It may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the proxy panics with the lock")
    }
}

/// A running proxy. B connects to it instead of to A.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on `address`, and passes on to `to` what comes.
    pub fn start(address: SocketAddr, to: SocketAddr) -> std::io::Result<Proxy> {
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared::default());
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, to, &shared)
        });
        Ok(Proxy {
            address,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Goes silent in these directions: connections stay, nothing comes through any more.
    pub fn hold(&self, ways: &[Way]) {
        self.change(|state| ways.iter().for_each(|w| state.ways[w.index()].held = true));
    }

    /// Takes everything in these directions and passes nothing on, as a network does that has lost its way. A connection
    /// that something was taken from is good for nothing any more.
    pub fn swallow(&self, ways: &[Way]) {
        self.change(|state| ways.iter().for_each(|w| state.ways[w.index()].swallowed = true));
    }

    /// Passes everything on later by `delay`, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.change(|state| state.ways.iter_mut().for_each(|w| w.delay = delay));
    }

    /// Flips one bit of what comes next in this direction: bit `bit` modulo the length of that piece.
    pub fn garble(&self, way: Way, bit: u64) {
        self.change(|state| state.ways[way.index()].garble = Some(bit));
    }

    /// How many bits were flipped so far.
    pub fn garbled(&self) -> u64 {
        self.shared.state().garbled
    }

    /// Closes all connections. New ones may be made.
    pub fn close(&self) {
        self.change(|state| state.connections.drain(..).for_each(|c| c.close()));
    }

    /// Ends one direction of all connections in good order; the other goes on.
    pub fn close_half(&self, way: Way) {
        self.change(|state| {
            for connection in &state.connections {
                // The connection may be gone.
                let _ = connection.ends[way.index()].shutdown(Shutdown::Write);
            }
        });
    }

    /// Closes all connections, and each new one at once.
    pub fn cut(&self) {
        self.change(|state| state.cut = true);
        self.close();
    }

    /// A sound link again. What was held goes through now.
    pub fn heal(&self) {
        self.change(|state| {
            state.cut = false;
            state.ways = Default::default();
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the acceptor up; if even that fails, it ends with the process.
        let woken = TcpStream::connect(self.address).is_ok();
        self.close();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    while let Ok((of_b, _)) = listener.accept() {
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
        if shared.state().cut {
            continue;
        }
        // Where A does not listen, B learns it by the end of its connection.
        let Ok(of_a) = TcpStream::connect(to) else { continue };
        // Frames wait for nothing.
        if of_a.set_nodelay(true).and(of_b.set_nodelay(true)).is_err() {
            continue;
        }
        let connection = Arc::new(Connection {
            ends: [of_a, of_b],
            over: AtomicBool::new(false),
            half: AtomicBool::new(false),
        });
        let mut state = shared.state();
        // It may have been cut meanwhile.
        if state.cut {
            continue;
        }
        state.connections.retain(|c| !c.over.load(Ordering::Relaxed));
        state.connections.push(Arc::clone(&connection));
        drop(state);
        for way in Way::BOTH {
            let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
            std::thread::spawn(move || pump(way, &connection, &shared));
        }
    }
}

/// Passes on what comes in one direction, until the connection ends.
fn pump(way: Way, connection: &Connection, shared: &Shared) {
    let (mut from, mut to) = (&connection.ends[1 - way.index()], &connection.ends[way.index()]);
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = match from.read(&mut chunk) {
            Ok(0) => return connection.end_half(way),
            Ok(length) => length,
            Err(_) => return connection.close(),
        };
        let Some(treatment) = treat(way, &mut chunk[..length], connection, shared) else {
            return;
        };
        std::thread::sleep(treatment.delay);
        if !treatment.swallowed && to.write_all(&chunk[..length]).is_err() {
            return connection.close();
        }
    }
}

/// Waits while this direction is held, and says what else becomes of a piece; `None` when the connection is over.
fn treat(way: Way, piece: &mut [u8], connection: &Connection, shared: &Shared) -> Option<Treatment> {
    let state = shared.state();
    let mut state = shared
        .changed
        .wait_while(state, |s| {
            s.ways[way.index()].held && !connection.over.load(Ordering::Relaxed)
        })
        .expect("no thread of the proxy panics with the lock");
    if connection.over.load(Ordering::Relaxed) {
        return None;
    }
    if let Some(bit) = state.ways[way.index()].garble.take() {
        state.garbled += 1;
        let bit = (bit % (piece.len() as u64 * 8)) as usize;
        piece[bit / 8] ^= 1 << (bit % 8);
    }
    Some(state.ways[way.index()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Ports;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// A and B, connected through a proxy.
    struct Pair {
        proxy: Proxy,
        listener: TcpListener,
        a: TcpStream,
        b: TcpStream,
        _ports: Ports,
    }

    const SOON: Duration = Duration::from_millis(200);
    const LATE: Duration = Duration::from_secs(10);

    impl Pair {
        fn new() -> Pair {
            let ports = Ports::reserve();
            let (proxied, real) = (local(ports.get(0)), local(ports.get(1)));
            let listener = TcpListener::bind(real).expect("a port");
            let proxy = Proxy::start(proxied, real).expect("a proxy");
            let b = TcpStream::connect(proxied).expect("connected");
            let (mut a, _) = listener.accept().expect("a connection");
            for end in [&a, &b] {
                end.set_read_timeout(Some(LATE)).expect("a time-out");
            }
            // What comes through says that the proxy knows of the connection.
            (&b).write_all(b"!").expect("sent");
            receive(&mut a, 1);
            Pair {
                proxy,
                listener,
                a,
                b,
                _ports: ports,
            }
        }
    }

    fn receive(from: &mut TcpStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    fn is_silent(from: &mut TcpStream) -> bool {
        from.set_read_timeout(Some(SOON)).expect("a time-out");
        let result = from.read(&mut [0]);
        from.set_read_timeout(Some(LATE)).expect("a time-out");
        result.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn what_is_held_comes_later_and_the_other_way_goes_on() {
        let mut pair = Pair::new();
        pair.proxy.hold(&[Way::ToA]);
        pair.b.write_all(b"request").expect("sent");
        pair.a.write_all(b"answer").expect("sent");
        assert_eq!(receive(&mut pair.b, 6), b"answer");
        assert!(is_silent(&mut pair.a));
        pair.proxy.heal();
        assert_eq!(receive(&mut pair.a, 7), b"request");
    }

    #[test]
    fn what_is_swallowed_never_comes() {
        let mut pair = Pair::new();
        pair.proxy.swallow(&[Way::ToA]);
        pair.b.write_all(b"lost").expect("sent");
        assert!(is_silent(&mut pair.a));
        pair.proxy.heal();
        pair.b.write_all(b"found").expect("sent");
        assert_eq!(receive(&mut pair.a, 5), b"found");
    }

    #[test]
    fn one_bit_is_flipped_once() {
        let mut pair = Pair::new();
        pair.proxy.garble(Way::ToB, 12_345);
        pair.a.write_all(&[0; 100]).expect("sent");
        let bits = |bytes: &[u8]| bytes.iter().map(|b| b.count_ones()).sum::<u32>();
        assert_eq!(bits(&receive(&mut pair.b, 100)), 1);
        pair.a.write_all(&[0; 100]).expect("sent");
        assert_eq!(bits(&receive(&mut pair.b, 100)), 0);
        assert_eq!(pair.proxy.garbled(), 1);
    }

    #[test]
    fn a_half_is_closed_and_the_other_goes_on() {
        let mut pair = Pair::new();
        pair.proxy.close_half(Way::ToA);
        assert_eq!(pair.a.read(&mut [0]).expect("an end"), 0);
        pair.a.write_all(b"still here").expect("sent");
        assert_eq!(receive(&mut pair.b, 10), b"still here");
    }

    #[test]
    fn cut_and_healed() {
        let mut pair = Pair::new();
        pair.proxy.cut();
        assert!(matches!(pair.a.read(&mut [0]), Ok(0) | Err(_)));
        assert!(matches!(pair.b.read(&mut [0]), Ok(0) | Err(_)));
        let mut refused = TcpStream::connect(pair.proxy.address).expect("connected");
        assert!(matches!(refused.read(&mut [0]), Ok(0) | Err(_)));
        pair.proxy.heal();
        let mut b = TcpStream::connect(pair.proxy.address).expect("connected");
        let (mut a, _) = pair.listener.accept().expect("a connection");
        b.write_all(b"again").expect("sent");
        assert_eq!(receive(&mut a, 5), b"again");
    }
}
