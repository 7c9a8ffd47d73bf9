//! A frame of the link whose payload goes straight into the memory where the core is going to want it
//! (docs/decisions/0004-io-uring.md).

use crate::memory::Memories;
use crate::queue::Body;
use crate::stream::{Came, IN_PLACE_BYTES, Stream};
use std::ops::Range;
use twincell_core::event::Event;
use twincell_core::ids::{BlockCount, ConnectionId};
use twincell_core::link::frame::Frame;
use twincell_core::memory::Memory;
use twincell_wire::frame::{self, FrameHeader, HEADER_BYTES};

/// Tells where the payload of a frame on a connection, with these messages and so many blocks, would go if it were
/// handled now.
pub(crate) type Place<'a> = &'a mut dyn FnMut(ConnectionId, &Frame, &[u8], BlockCount) -> Option<Memory>;

/// A frame whose payload is being received in place.
pub(crate) struct InPlace {
    connection: ConnectionId,
    /// Header and body, as they came.
    head: Vec<u8>,
    /// Where the messages are in it.
    messages: Range<usize>,
    header: FrameHeader,
    frame: Frame,
    /// Where the payload goes.
    pub into: Memory,
    /// Bytes of it that are there.
    placed: usize,
    /// All of it is there, and the frame is in the queue.
    pub is_queued: bool,
}

impl InPlace {
    /// Of a frame that the input ends in, and of which `missing` bytes are missing: moves what is there of its payload
    /// into place, if it is large and the core knows the place. `head` is some memory to be used again.
    pub(crate) fn begin(
        connection: ConnectionId,
        stream: &mut Stream,
        missing: usize,
        head: &mut Vec<u8>,
        memories: &Memories,
        place: Place,
    ) -> Option<InPlace> {
        if missing < IN_PLACE_BYTES {
            return None;
        }
        let input = stream.input();
        // What is wrong with it is found again when all of it is here.
        let header = FrameHeader::decode(input.first_chunk::<HEADER_BYTES>()?).ok()?;
        let body_end = HEADER_BYTES + header.body_len;
        let (frame, messages) = frame::decode_body(&header, input.get(HEADER_BYTES..body_end)?).ok()?;
        let into = place(connection, &frame, messages, BlockCount(header.payload_blocks))?;
        let messages = body_end - messages.len()..body_end;
        let (all, ahead) = (input.len(), &input[body_end..]);
        memories.unseal(&into);
        memories.copy_in(&into, 0, ahead);
        let placed = ahead.len();
        head.clear();
        head.extend_from_slice(&input[..body_end]);
        stream.consume(all);
        Some(InPlace {
            connection,
            head: std::mem::take(head),
            messages,
            header,
            frame,
            into,
            placed,
            is_queued: false,
        })
    }

    /// Whether it still goes where it has begun to go.
    pub(crate) fn is_right(&self, place: Place) -> bool {
        let blocks = BlockCount(self.header.payload_blocks);
        place(self.connection, &self.frame, self.messages(), blocks) == Some(self.into)
    }

    /// Receives what there is now, and a little of what follows the payload.
    pub(crate) fn receive(&mut self, stream: &mut Stream, memories: &Memories) -> Came {
        let came = stream.receive_at_once(memories.pieces_of(&self.into, self.placed, self.missing()));
        if let Came::Bytes(bytes) = came {
            self.placed += bytes;
        }
        came
    }

    /// Bytes of the payload that are there.
    pub(crate) fn placed(&self) -> usize {
        self.placed
    }

    /// Bytes of the payload that are still to come.
    pub(crate) fn missing(&self) -> usize {
        self.header.payload_bytes() - self.placed
    }

    /// The messages.
    pub(crate) fn messages(&self) -> &[u8] {
        &self.head[self.messages.clone()]
    }

    /// All of the payload is there: the frame, if that is what was sent. The CRCs of the segments of its place are
    /// appended to `crcs`.
    pub(crate) fn finish(&mut self, key: usize, crcs: &mut Vec<u32>, memories: &Memories) -> Option<(Event, Body)> {
        let body = Body {
            key,
            in_place: true,
            messages: self.messages.clone(),
            payload: 0..0,
            crcs: crcs.len(),
        };
        self.is_queued = memories.sum(&self.into, crcs) == self.header.payload_crc;
        let event = Event::LinkFrame {
            connection: self.connection,
            frame: self.frame,
            payload: BlockCount(self.header.payload_blocks),
        };
        self.is_queued.then_some((event, body))
    }

    /// Its place is gone: it goes on as any other frame does. What somebody else may have written there meanwhile is found
    /// by the CRC. Returns the bytes that are missing of the frame.
    pub(crate) fn put_back(&self, stream: &mut Stream, memories: &Memories) -> usize {
        stream.put_back(&self.head);
        let there = memories.pieces_of(&self.into, 0, self.placed);
        there.for_each(|piece| stream.put_back(piece.read()));
        self.missing()
    }

    /// Memory to be used again.
    pub(crate) fn into_head(self) -> Vec<u8> {
        self.head
    }
}
