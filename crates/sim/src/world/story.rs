//! What happened, told: at length for who looks into a seed, and in compact words for scripts and snapshots.
//!
//! A compact line has no time, no identity of a process, image or I/O, and no number that another change would shift, so
//! that a change of the protocol is a short difference in the text.

use super::{MS, World};
use twincell_core::cell::record::{Mode, Record};
use twincell_core::config::{BMAE_WORDS, Geometry, NCAE_WORDS, RIE_WORDS};
use twincell_core::effect::Note;
use twincell_core::host::HostOp;
use twincell_core::ids::{BufferIndex, Controller, LUNS_MAX, NvAddress};
use twincell_core::link::frame::{Frame, Messages, Mfc, Request, Response, Rqr};
use twincell_core::memory::{Memory, blocks_of};
use twincell_core::nv::word::{Bmae, Rie};
use twincell_core::{Core, Effect, Event};

impl World {
    pub(super) fn log(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>12.3} ms  {}", self.now as f64 / MS as f64 - 1000.0, text());
        }
    }

    /// An event is handled.
    pub(super) fn tell_event(&mut self, controller: Controller, event: &Event, mfcs: &[Mfc]) {
        if self.verbose && !matches!(event, Event::Tick) {
            self.log(|| format!("{controller} <- {}{}", short(event), short_messages(mfcs)));
        }
        if self.story.is_some()
            && let Some(words) = event_in_words(controller, event, mfcs)
        {
            self.tell(controller, words);
        }
    }

    /// An effect is carried out.
    pub(super) fn tell_effect(&mut self, controller: Controller, effect: &Effect) {
        let quiet = matches!(
            effect,
            Effect::Store { .. } | Effect::Seal { .. } | Effect::Persist { .. }
        );
        let core = &self.processes[controller.index()].as_ref().expect("it wants it").core;
        if self.verbose && !quiet {
            let mfcs = sent_with(effect, core).map_or(&[][..], |m| &m.mfcs);
            self.log(|| format!("{controller} -> {}{}", short(effect), short_messages(mfcs)));
        }
        if self.story.is_some()
            && let Some(words) = effect_in_words(controller, effect, core)
        {
            self.tell(controller, words);
        }
    }

    /// Adds a line to the story, and springs the trap that waits for it.
    pub(super) fn tell(&mut self, controller: Controller, words: String) {
        let Some(story) = &mut self.story else { return };
        if let Some(at) = self
            .traps
            .iter()
            .position(|(c, text)| *c == controller && words.contains(text))
        {
            self.traps.remove(at);
            self.trapped = true;
        }
        story.push(words);
    }
}

fn short(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    if text.len() > 400 {
        format!("{}…", &text[..text.char_indices().take(400).last().map_or(0, |c| c.0)])
    } else {
        text
    }
}

fn short_messages(mfcs: &[Mfc]) -> String {
    let words: Vec<_> = mfcs.iter().map(|m| format!(" {}", short(m))).collect();
    words.concat()
}

/// The messages that a frame is sent with.
fn sent_with<'a>(effect: &Effect, core: &'a Core) -> Option<&'a Messages> {
    match effect {
        Effect::LinkSend {
            frame: Frame::Messages(sequenced),
            ..
        } => Some(core.messages(sequenced)),
        _ => None,
    }
}

fn event_in_words(c: Controller, event: &Event, mfcs: &[Mfc]) -> Option<String> {
    Some(match event {
        Event::Start => format!("{c} starts"),
        Event::LocksTaken => format!("{c} holds its own locks"),
        Event::Fenced => format!("{c} holds the locks of {}", c.other()),
        Event::DiskDone { result: Err(_), .. } => format!("{c} <- disk: error"),
        Event::DiskOverdue { .. } => format!("{c} <- disk: overdue"),
        Event::FlushFailed { disk } => format!("{c} <- disk {disk}: a flush failed"),
        Event::LinkOpened { .. } => format!("{c} <- link opened"),
        Event::LinkClosed { .. } => format!("{c} <- link closed"),
        Event::LinkFrame { frame, payload, .. } => {
            format!("{c} <- {}: {}", c.other(), frame_in_words(frame, mfcs, payload.0)?)
        }
        Event::HostCommand(command) => {
            let (lun, start, blocks) = (command.ncae, command.start, command.blocks);
            let op = op_in_words(command.op);
            let in_hand = match command.op {
                HostOp::Write { .. } => format!(", {} in hand", command.in_hand),
                _ => String::new(),
            };
            format!("{c} <- host: {op} {lun}:{start}+{blocks}{in_hand}")
        }
        Event::HostAbort { .. } => format!("{c} <- host: abort"),
        Event::HostData { complete: true, .. } => format!("{c} <- host: data"),
        Event::HostData { complete: false, .. } => format!("{c} <- host: no data"),
        Event::Manage { op, .. } => format!("{c} <- operator: {}", first_word(op)),
        Event::Tick | Event::Persisted { .. } | Event::DiskDone { .. } => return None,
        Event::SlotRead { .. } | Event::MetadataRead { .. } => return None,
    })
}

fn effect_in_words(c: Controller, effect: &Effect, core: &Core) -> Option<String> {
    Some(match effect {
        Effect::Store { address, word } => {
            format!("{c} nv: {}", store_in_words(*address, *word, core.words().geometry())?)
        }
        Effect::NewImage { .. } => format!("{c} nv: a fresh image"),
        Effect::Persist { .. } => format!("{c} nv: persist"),
        Effect::Merge { from, to, mask } => format!("{c} merge: buffer {from} to {to}, blocks {mask:08b}"),
        Effect::Gather { from, .. } => format!(
            "{c} copy: {} to a transfer buffer, {} blocks",
            memory_in_words(&Memory::Buffers(*from)),
            blocks_of(from)
        ),
        Effect::Scatter { into, .. } => format!(
            "{c} copy: a transfer buffer, {} blocks to {}",
            blocks_of(into),
            memory_in_words(&Memory::Buffers(*into))
        ),
        Effect::Fetch { into, .. } => format!("{c} -> host: fetch into {}", memory_in_words(into)),
        Effect::EndHost { .. } => format!("{c} closes the host's connection"),
        Effect::SendData { from, .. } => format!("{c} -> host: data from {}", memory_in_words(from)),
        Effect::Complete { status, .. } => format!("{c} -> host: {status:?}"),
        Effect::Absorb { into } => format!("{c} absorb: into {}", memory_in_words(into)),
        Effect::LinkSend { frame, .. } => {
            let messages = sent_with(effect, core);
            let mfcs = messages.map_or(&[][..], |m| &m.mfcs);
            let payload = messages.and_then(|m| m.payload).map_or(0, |p| p.blocks());
            format!("{c} -> {}: {}", c.other(), frame_in_words(frame, mfcs, payload)?)
        }
        Effect::LinkClose { .. } => format!("{c} closes the link"),
        Effect::DiskRead { disk, block, into, .. } => format!("{c} -> disk {disk}: read {block}+{}", into.blocks()),
        Effect::DiskWrite { disk, block, from, .. } => format!("{c} -> disk {disk}: write {block}+{}", from.blocks()),
        Effect::DiskProbe { disk, .. } => format!("{c} -> disk {disk}: probe"),
        Effect::DiskFlush { disk, .. } => format!("{c} -> disk {disk}: flush"),
        Effect::DiskZero {
            disk, block, blocks, ..
        } => format!("{c} -> disk {disk}: zero {block}+{blocks}"),
        Effect::MetadataWrite { disk, copy, .. } => format!("{c} -> disk {disk}: metadata {copy}"),
        Effect::SlotWrite { io, disk } => {
            let slot = core.slot_written_by(*io)?;
            // A slot without a vote is a sign of life.
            if slot.voted == 0 {
                return None;
            }
            format!("{c} -> disk {disk}: votes for {}", record_in_words(&slot.proposal))
        }
        Effect::TakeLocks => format!("{c} takes its own locks"),
        Effect::Fence { .. } => format!("{c} fences {}", c.other()),
        Effect::Unfence => format!("{c} lifts the fence"),
        Effect::CloseHosts => format!("{c} closes host connections"),
        Effect::Serve => format!("{c} serves"),
        Effect::Reply { result, .. } => format!("{c} -> operator: {}", first_word(result)),
        Effect::Restart => format!("{c} restarts"),
        Effect::Exit => format!("{c} exits, without its image"),
        Effect::Halt => format!("{c} exits"),
        Effect::Note(note) => format!("{c} notes: {}", note_in_words(note)),
        Effect::Seal { .. } | Effect::SlotRead { .. } | Effect::MetadataRead { .. } | Effect::ViewChanged => {
            return None;
        }
    })
}

fn op_in_words(op: HostOp) -> &'static str {
    match op {
        HostOp::Read => "read",
        HostOp::Write { fua: false } => "write",
        HostOp::Write { fua: true } => "write, FUA",
        HostOp::Sync => "sync",
    }
}

fn first_word(what: &impl std::fmt::Debug) -> String {
    let text = format!("{what:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_string()
}

fn note_in_words(note: &Note) -> String {
    match note {
        Note::BallotWon { .. } => "ballot won".into(),
        Note::BallotLost { .. } => "ballot lost".into(),
        Note::Resolved {
            valid,
            absorbed,
            dropped,
        } => {
            format!("resolved: {valid} valid, {absorbed} absorbed, {dropped} dropped")
        }
        note => format!("{note:?}"),
    }
}

fn record_in_words(record: &Record) -> String {
    match record.mode {
        Mode::Both => "BOTH".into(),
        Mode::Alone { controller, dirty } => {
            format!("ALONE({controller}, {})", if dirty { "dirty" } else { "clean" })
        }
    }
}

/// The stores that change what is true: of a BMAE its state, of an RIE its sub-state.
fn store_in_words(NvAddress(address): NvAddress, word: u64, geometry: Geometry) -> Option<String> {
    let ries = LUNS_MAX as u32 * NCAE_WORDS;
    let bmaes = ries + u32::from(geometry.ries) * 2 * RIE_WORDS;
    if address < ries {
        return None;
    }
    if address < bmaes {
        let (rie, part) = ((address - ries) / RIE_WORDS, (address - ries) % RIE_WORDS);
        let state = Rie::decode(word).ok().filter(|_| part == 0)?.state;
        return Some(format!("RIE {rie} {state:?}"));
    }
    let (buffer, part) = ((address - bmaes) / BMAE_WORDS, (address - bmaes) % BMAE_WORDS);
    let bmae = Bmae::decode(word).ok().filter(|_| part == 0)?;
    Some(format!("BMAE {buffer} {:?} {:08b}", bmae.state, bmae.mask))
}

fn memory_in_words(memory: &Memory) -> String {
    match memory {
        Memory::Buffers(sgl) => format!("buffers {}", buffers_in_words(sgl.iter().map(|s| s.buffer))),
        Memory::Transfer { blocks, .. } => format!("a transfer buffer, {blocks} blocks"),
    }
}

fn buffers_in_words(buffers: impl Iterator<Item = BufferIndex>) -> String {
    let numbers: Vec<_> = buffers.map(|b| b.to_string()).collect();
    format!("[{}]", numbers.join(" "))
}

fn frame_in_words(frame: &Frame, mfcs: &[Mfc], payload: u32) -> Option<String> {
    match frame {
        Frame::Hello(_) => Some("hello".into()),
        Frame::Heartbeat { .. } | Frame::HeartbeatAnswer { .. } | Frame::Ack { .. } => None,
        Frame::Messages(_) => {
            let mut words: Vec<_> = mfcs.iter().map(mfc_in_words).collect();
            if payload > 0 {
                words.push(format!("{payload} blocks"));
            }
            Some(words.join(", "))
        }
    }
}

fn rqr_in_words(rqr: &Rqr) -> String {
    let new = buffers_in_words(rqr.new.iter().copied());
    let old = buffers_in_words(rqr.old.iter().copied());
    let form = if rqr.express { " express" } else { "" };
    format!(
        "RQR{form} {}:{}+{} RIE {} new {new} old {old}",
        rqr.ncae, rqr.start, rqr.blocks, rqr.rie
    )
}

fn mfc_in_words(mfc: &Mfc) -> String {
    match mfc {
        Mfc::Rqr(rqr) => rqr_in_words(rqr),
        Mfc::Rtr { rie, .. } => format!("RTR RIE {rie}"),
        Mfc::MirrorData { rie, .. } => format!("data RIE {rie}"),
        Mfc::Mda { rie, .. } => format!("MDA RIE {rie}"),
        Mfc::Dto { rie, .. } => format!("DTO RIE {rie}"),
        Mfc::Dss { rie, status, .. } => format!("DSS RIE {rie} {status:?}"),
        Mfc::Withdraw { rie, .. } => format!("withdraw RIE {rie}"),
        Mfc::Release(buffers) => format!("release {}", buffers_in_words(buffers.iter().copied())),
        Mfc::LevelRies(ries) => format!("level: {} RIEs?", ries.len()),
        Mfc::LevelLacks(ries) => format!("level: lacks {}", ries.len()),
        Mfc::LevelBuffers { valid, .. } => {
            let count: u32 = valid.iter().map(|w| w.count_ones()).sum();
            format!("level: {count} buffers")
        }
        Mfc::LevelEnd => "level: end".into(),
        Mfc::Leveled(level) => format!("level: {level}"),
        Mfc::Attach { .. } => "attach".into(),
        Mfc::RecordIs(record) => format!("record is {}", record_in_words(record)),
        Mfc::RecordAdopted(_) => "record adopted".into(),
        Mfc::Request {
            request:
                Request::Forward {
                    op,
                    ncae,
                    start,
                    blocks,
                    ..
                },
            ..
        } => {
            format!("forward {} {ncae}:{start}+{blocks}", op_in_words(*op))
        }
        Mfc::Request {
            request: Request::Manage(op),
            ..
        } => format!("manage {}", first_word(op)),
        Mfc::Response {
            response: Response::Forwarded(status),
            ..
        } => format!("forwarded {status:?}"),
        Mfc::Response {
            response: Response::Managed(result),
            ..
        } => format!("managed {}", first_word(result)),
        other => first_word(other).to_lowercase(),
    }
}
