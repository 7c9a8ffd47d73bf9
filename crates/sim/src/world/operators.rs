//! What operators ask of a busy cell, and what must be so when they are told that it was done, or was not.

use super::cell::lun_name;
use super::queue::Happening;
use super::{LUNS, MS, World};
use crate::fault::Fault;
use crate::history::Moment;
use crate::plan::Mode as Promised;
use crate::process::Process;
use crate::wishes::{MADE, RENAMED};
use twincell_core::cell::record::Mode;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, Noid, RequestId, Uuid};
use twincell_core::layout::metadata::{Lun, Metadata, Name, Redundancy};
use twincell_core::manage::{ManageError, ManageOp, ManageReply};

/// A controller that has been alone for this long has changed its slots, and its partner has looked at them since.
const SHOWN: u64 = 10_000 * MS;
/// In one run operators ask no more often.
const MOST_ASKED: usize = 600;

/// What an operator has asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    request: RequestId,
    op: ManageOp,
    /// When, and when it was answered. Of what got "unknown" for an answer nobody can tell when it is over.
    from: Moment,
    to: Option<Moment>,
    /// The one who was asked waited for an operator to give up its partner's memory when it heard of this.
    awaited: bool,
    /// What the one who was asked knew of the LUNs that it names when it heard of this.
    before: Option<Vec<Option<(Noid, u64)>>>,
}

impl Asked {
    /// Whether both were under way at one time, or nobody knows.
    fn overlaps(&self, other: &Asked) -> bool {
        self.request != other.request && other.to.is_none_or(|to| to > self.from)
    }
}

impl World {
    /// A wish of an operator of a busy cell.
    pub(super) fn wish(&mut self, fault: Fault) {
        let name = |n: u16| lun_name(n.into());
        let op = match fault {
            Fault::MakeLun(n, blocks, mirrored) => ManageOp::LunCreate {
                name: name(n),
                uuid: Uuid(10_000 + u128::from(self.next_request)),
                blocks,
                redundancy: if mirrored { Redundancy::Vraid1 } else { Redundancy::None },
            },
            Fault::EnlargeLun(n, blocks) => ManageOp::LunGrow { name: name(n), blocks },
            Fault::DropLun(n) => ManageOp::LunDelete { name: name(n) },
            _ => return,
        };
        self.manage(op);
    }

    /// An operator asks for something.
    pub(super) fn note_asked(&mut self, request: RequestId, op: ManageOp) {
        if let ManageOp::LunDelete { name } = op {
            self.doom_group(group(&name));
        }
        self.asked.push(Asked {
            request,
            op,
            from: self.number,
            to: None,
            awaited: false,
            before: None,
        });
    }

    /// A controller hears of it, which may take a while.
    pub(super) fn note_heard(&mut self, controller: Controller, request: RequestId) {
        let awaits = self.awaits_operator(controller);
        let process = self.processes[controller.index()].as_ref();
        let metadata = process.filter(|p| p.serves).and_then(|p| p.core.metadata());
        if let Some(asked) = self.asked.iter_mut().find(|a| a.request == request) {
            asked.awaited = awaits;
            asked.before = metadata.map(|m| names(&asked.op).iter().map(|n| of_lun(m, n)).collect());
        }
    }

    /// All LUNs of this number may be gone at any time.
    fn doom_group(&mut self, number: Option<u16>) {
        let made = self.luns[LUNS..].iter_mut();
        made.filter(|l| l.group == number).for_each(|l| l.doomed = true);
    }

    /// Whether a LUN that hosts find now may be gone at any time: somebody may still delete it.
    pub(super) fn is_doomed(&self, number: Option<u16>) -> bool {
        let deletes =
            |a: &Asked| a.to.is_none() && matches!(&a.op, ManageOp::LunDelete { name } if group(name) == number);
        self.asked.iter().any(deletes)
    }

    /// The oracle: what an operator is told is so, on both controllers that are in. What is told of something that others
    /// wanted changed at the same time says nothing.
    pub(super) fn check_reply(
        &mut self,
        controller: Controller,
        request: RequestId,
        result: &Result<ManageReply, ManageError>,
    ) {
        let number = self.number;
        let Some(asked) = self.asked.iter_mut().find(|a| a.request == request) else {
            return;
        };
        let is_unknown = matches!(result, Err(ManageError::Unknown));
        asked.to = (!is_unknown).then_some(number);
        let asked = asked.clone();
        if let (ManageOp::AcceptLoss { missing }, true) = (&asked.op, result.is_ok())
            && (!asked.awaited || self.has_shown_life(*missing))
        {
            return self.fail(format!("{controller} takes for lost what is not"));
        }
        self.insist(&asked, result);
        let touched = groups(&asked.op);
        let meets = |o: &Asked| {
            let all = matches!(o.op, ManageOp::Stop) && matches!(asked.op, ManageOp::LunMove { .. });
            all || groups(&o.op).iter().any(|g| touched.contains(g))
        };
        if self.plan.mode == Promised::Chaos || self.asked.iter().any(|o| asked.overlaps(o) && meets(o)) {
            return;
        }
        // It is not said whether it was done.
        if is_unknown {
            return;
        }
        for who in self.who_must_know(controller) {
            let process = self.processes[who.index()].as_ref().expect("it serves");
            let Some(metadata) = process.core.metadata() else {
                continue;
            };
            let good = if result.is_ok() {
                shows(metadata, &asked.op) && names_lun(metadata, &asked.op, result) && self.shows_owner(who, &asked.op)
            } else {
                let now: Vec<_> = names(&asked.op).iter().map(|n| of_lun(metadata, n)).collect();
                asked.before.as_ref().is_none_or(|before| *before == now)
            };
            if !good {
                return self.fail(format!(
                    "{controller} answers {:?} with {result:?}, and {who} has not so",
                    asked.op
                ));
            }
        }
    }

    /// Whether a controller has been in alone for so long, and without a pause, that its partner must have seen it change its
    /// slots, however late it looked.
    fn has_shown_life(&self, controller: Controller) -> bool {
        let jump = |(_, fault): &(u64, Fault)| matches!(fault, Fault::ClockJump(..));
        let true_clocks = self.plan.mode != Promised::Chaos && !self.plan.faults.iter().any(jump);
        let shows = |p: &Process| {
            let is_steady = p.paused_until == 0 && p.core.cell_view().role == Role::Serving;
            is_steady && p.alone_since.is_some_and(|since| self.now > since + SHOWN)
        };
        true_clocks && self.processes[controller.index()].as_ref().is_some_and(shows)
    }

    /// Some operators ask again, whoever is there, for what could not be done just now.
    fn insist(&mut self, asked: &Asked, result: &Result<ManageReply, ManageError>) {
        use ManageError::{AwaitsDisk, Busy, ControllerOut, DiskError, NotServing, Unknown};
        let for_now = matches!(
            result,
            Err(Busy | NotServing | Unknown | ControllerOut | AwaitsDisk | DiskError)
        );
        if for_now
            && self.plan.insistent
            && !self.healing
            && !matches!(asked.op, ManageOp::Stop | ManageOp::AcceptLoss { .. })
            && self.asked.len() < MOST_ASKED
        {
            let most = if self.random.one_in(2) { 2 * MS } else { 100 * MS };
            let delay = self.random.below(most);
            self.after(delay, Happening::Ask(Box::new(asked.op)));
        }
    }

    /// The one that answers, and its partner where both are in.
    fn who_must_know(&self, controller: Controller) -> Vec<Controller> {
        let is_in = |c: &Controller| {
            let view = self.processes[c.index()].as_ref().map(|p| p.core.cell_view());
            let both = |v: &twincell_core::controller::CellView| v.record.is_some_and(|r| r.mode == Mode::Both);
            view.is_some_and(|v| v.role == Role::Serving && v.linked && both(&v))
        };
        if Controller::BOTH.iter().all(is_in) {
            return Controller::BOTH.to_vec();
        }
        let serves = self.processes[controller.index()].as_ref().is_some_and(|p| p.serves);
        if serves { vec![controller] } else { Vec::new() }
    }

    /// A LUN that was moved has its new owner, as long as both are in.
    fn shows_owner(&self, who: Controller, op: &ManageOp) -> bool {
        let ManageOp::LunMove { name, to } = op else {
            return true;
        };
        let process = self.processes[who.index()].as_ref().expect("it serves");
        let both = process.core.cell_view().record.is_some_and(|r| r.mode == Mode::Both);
        !both || process.core.luns().any(|l| l.name == *name && l.owner == *to)
    }
}

/// Whether metadata are as what was asked for would have them.
fn shows(metadata: &Metadata, op: &ManageOp) -> bool {
    let has = |name: &Name, is: &dyn Fn(&Lun) -> bool| metadata.lun_named(name).is_some_and(is);
    match op {
        ManageOp::LunCreate {
            name,
            blocks,
            redundancy,
            ..
        } => has(name, &|l| l.blocks == *blocks && l.redundancy == *redundancy),
        ManageOp::LunGrow { name, blocks } => has(name, &|l| l.blocks == *blocks),
        ManageOp::LunRename { name, to } => has(to, &|_| true) && (name == to || !has(name, &|_| true)),
        ManageOp::LunDelete { name } => !has(name, &|_| true),
        _ => true,
    }
}

/// Whether the LUN that an operator hears of is the one that was made.
fn names_lun(metadata: &Metadata, op: &ManageOp, result: &Result<ManageReply, ManageError>) -> bool {
    match (op, result) {
        (ManageOp::LunCreate { name, .. }, Ok(ManageReply::Lun { noid, ncae, .. })) => {
            let made = metadata.lun_named(name);
            made.is_some_and(|l| (l.noid, l.ncae) == (*noid, *ncae))
        }
        (ManageOp::LunCreate { .. }, Ok(_)) => false,
        _ => true,
    }
}

/// What metadata say of a LUN that an operator can change.
fn of_lun(metadata: &Metadata, name: &Name) -> Option<(Noid, u64)> {
    metadata.lun_named(name).map(|l| (l.noid, l.blocks))
}

/// The names of LUNs in what is asked for.
fn names(op: &ManageOp) -> Vec<Name> {
    match op {
        ManageOp::LunCreate { name, .. } | ManageOp::LunGrow { name, .. } => vec![*name],
        ManageOp::LunDelete { name } | ManageOp::LunMove { name, .. } => vec![*name],
        ManageOp::LunRename { name, to } => vec![*name, *to],
        _ => Vec::new(),
    }
}

fn groups(op: &ManageOp) -> Vec<Option<u16>> {
    names(op).iter().map(group).collect()
}

/// The number of a LUN, whether it was renamed or not.
pub(super) fn group(name: &Name) -> Option<u16> {
    let number: u16 = name.as_str().strip_prefix("lun")?.parse().ok()?;
    Some(if number >= RENAMED { number - RENAMED } else { number })
}

/// Whether a LUN is one of those that operators of a busy cell make.
pub(super) fn is_made(group: Option<u16>) -> bool {
    group.is_some_and(|n| MADE.contains(&n))
}
