//! What the window does with a wire that loses frames: two links of the core, nothing around them. Every message is
//! handled once and in order, and a table says how many get through, by loss and by how many are in flight.

use expect_test::expect;
use std::collections::VecDeque;
use std::fmt::Write;
use twincell_core::effect::Effect;
use twincell_core::ids::{
    BufferIndex, ConnectionId, Controller, Epoch, Incarnation, Nanos, ProcessId, RieGeneration, RieIndex, Time, Uuid,
};
use twincell_core::link::frame::{Frame, Hello, Messages, Mfc};
use twincell_core::link::mfcd::Mfcd;
use twincell_core::link::{Greeting, Link};
use twincell_core::list::List;
use twincell_core::memory::{Memory, Segment};

/// The clock of the wire, its delay one way, and the time that a frame takes of it.
const TICK: u64 = 10_000;
const DELAY: u64 = 50_000;
const FRAME: u64 = 5_000;
/// How long each cell of the table is measured, in nanoseconds.
const RUN: u64 = 400_000_000;
const RETRANSMIT: Nanos = Nanos::from_millis(200);
const CONNECTION: ConnectionId = ConnectionId(1);

/// Frames on their way in one direction, in order, and when each arrives.
#[derive(Default)]
struct Wire {
    under_way: VecDeque<(u64, Frame, Messages)>,
    last: u64,
}

struct End {
    link: Link,
    effects: Vec<Effect>,
    /// Data that were handled, or answers.
    handled: u64,
}

struct Pair {
    ends: [End; 2],
    /// To each.
    wires: [Wire; 2],
    now: u64,
    /// Of a thousand frames so many are lost.
    loss: u64,
    random: u64,
}

impl End {
    fn new() -> End {
        End {
            link: Link::new(RETRANSMIT, 1024),
            effects: Vec::new(),
            handled: 0,
        }
    }

    /// 4 KiB of data, the `n`-th.
    fn send(&mut self, n: u64) {
        let (rie, generation) = (RieIndex((n >> 16) as u16), RieGeneration(n as u16));
        self.link.request(Mfcd::MirrorData { rie, generation });
    }

    fn flush(&mut self, now: Time) {
        self.link.send_again(now, &mut self.effects);
        while let Some(mfcd) = self.link.next_request() {
            let (mfc, payload) = match mfcd {
                Mfcd::MirrorData { rie, generation } => (
                    Mfc::MirrorData {
                        rie,
                        generation,
                        attempt: 0,
                    },
                    Some(payload()),
                ),
                Mfcd::Mda { rie, generation } => (Mfc::Mda { rie, generation }, None),
                other => panic!("{other:?} was not requested"),
            };
            if mfc.bytes() > self.link.room() {
                self.link.end_frame(now, &mut self.effects);
                continue;
            }
            self.link.put(mfc, payload, true);
            if payload.is_some() {
                self.link.end_frame(now, &mut self.effects);
            }
        }
        self.link.end_frame(now, &mut self.effects);
        self.link.send_acknowledgement(now, &mut self.effects);
    }
}

fn payload() -> Memory {
    let segment = Segment {
        buffer: BufferIndex(0),
        first: 0,
        count: 8,
    };
    Memory::Buffers(std::iter::once(segment).collect())
}

impl Pair {
    fn new(loss: u64) -> Pair {
        let mut pair = Pair {
            ends: [End::new(), End::new()],
            wires: Default::default(),
            now: TICK,
            loss,
            random: 0x9e37_79b9_7f4a_7c15,
        };
        for n in 0..2 {
            let link = &mut pair.ends[n].link;
            link.opened(0, CONNECTION, Time(TICK));
            link.unsaid();
            let hello = Hello {
                controller: Controller::BOTH[1 - n],
                cell: Uuid(1),
                instance: Uuid(1 + (1 - n) as u128),
                process: ProcessId::default(),
                incarnation: Incarnation(0),
                session: Incarnation(0),
                met: Uuid::NIL,
                epoch: Epoch(1),
                image: Uuid(1),
                undecided: false,
                buffers: 64,
            };
            let greeting = link.greet(CONNECTION, hello, Uuid(1 + n as u128), Time(TICK));
            assert_eq!(greeting, Greeting::Joined);
        }
        pair
    }

    fn is_lost(&mut self) -> bool {
        // xorshift64 (Marsaglia).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 1000 < self.loss
    }

    fn tick(&mut self) {
        self.now += TICK;
        for n in 0..2 {
            while let Some((_, frame, messages)) = self.wires[n].under_way.pop_front_if(|(at, ..)| *at <= self.now) {
                self.arrive(n, &frame, &messages);
            }
            self.ends[n].flush(Time(self.now));
            for effect in std::mem::take(&mut self.ends[n].effects) {
                let Effect::LinkSend { frame, .. } = effect else {
                    panic!("{effect:?} is nothing that a link does")
                };
                let messages = match &frame {
                    Frame::Messages(m) => self.ends[n].link.messages(m.sequence).clone(),
                    _ => Messages::default(),
                };
                let lost = self.is_lost();
                let wire = &mut self.wires[1 - n];
                wire.last = (self.now + DELAY).max(wire.last + FRAME);
                if !lost {
                    wire.under_way.push_back((wire.last, frame, messages));
                }
            }
        }
    }

    fn arrive(&mut self, n: usize, frame: &Frame, messages: &Messages) {
        let now = Time(self.now);
        let link = &mut self.ends[n].link;
        match frame {
            Frame::Ack {
                incarnation,
                acknowledged,
                missing,
            } => link.receive_ack(*incarnation, *acknowledged, *missing, now),
            Frame::Messages(m) => {
                if let Some(place) = link.place_of(m) {
                    *place = List::from_slice(&messages.mfcs);
                }
                let blocks = messages.payload.map_or(0, |p| p.blocks());
                if link.receive(CONNECTION, m, blocks, now) {
                    self.handle(n, m.sequence);
                    while let Some(sequence) = self.ends[n].link.next_held() {
                        self.handle(n, sequence);
                    }
                }
            }
            other => panic!("{other:?} was never sent"),
        }
        while self.ends[n].link.next_acknowledged().is_some() {}
    }

    /// The first end sends data and gets answers; the second one answers. Both must come in order, each once.
    fn handle(&mut self, n: usize, sequence: u32) {
        for mfc in self.ends[n].link.arrived(sequence).to_vec() {
            let (rie, generation) = match mfc {
                Mfc::MirrorData { rie, generation, .. } | Mfc::Mda { rie, generation } => (rie, generation),
                other => panic!("{other:?} was never sent"),
            };
            let number = u64::from(rie.0) << 16 | u64::from(generation.0);
            let end = &mut self.ends[n];
            assert_eq!(number, end.handled, "out of order, or not once");
            end.handled += 1;
            if n == 1 {
                end.link.request(Mfcd::Mda { rie, generation });
            }
        }
    }
}

/// Data that were answered in a second, with so many in flight.
fn answered_per_second(loss: u64, in_flight: u64) -> (u64, u64) {
    let mut pair = Pair::new(loss);
    let mut sent = 0;
    while pair.now < RUN {
        while sent < pair.ends[0].handled + in_flight {
            pair.ends[0].send(sent);
            sent += 1;
        }
        pair.tick();
    }
    let resent = pair.ends[0].link.resent + pair.ends[1].link.resent;
    let (data, answers) = (pair.ends[1].handled, pair.ends[0].handled);
    assert!(data >= answers && data <= sent);
    (answers * 1_000_000_000 / RUN, resent)
}

#[test]
fn throughput_by_loss_and_window() {
    let mut table = "lost of 1000   in flight: 1         4        16        64\n".to_owned();
    for loss in [0, 1, 10, 50, 200] {
        write!(table, "{loss:12}").expect("a string takes everything");
        for in_flight in [1, 4, 16, 64] {
            let (answered, resent) = answered_per_second(loss, in_flight);
            assert!(answered > 0, "nothing gets through at {loss} of 1000 with {in_flight}");
            assert_eq!(resent == 0, loss == 0, "{resent} frames were sent again");
            write!(table, " {answered:>9}").expect("a string takes everything");
        }
        table.push('\n');
    }
    expect![[r#"
        lost of 1000   in flight: 1         4        16        64
                   0      9090     36360    141632    199942
                   1      1517     36155     80440     69340
                  10       267     27007     15432      8050
                  50        42      2127      1607       892
                 200        12       107       227       185
    "#]]
    .assert_eq(&table);
}
