//! The processes of the controllers: they start, handle events, stop for a while, and end.

use super::queue::Happening;
use super::{MS, Step, US, World};
use crate::fault::Fault;
use crate::process::{NvMemory, Process};
use std::collections::VecDeque;
use std::hash::Hash;
use twincell_core::config::Config;
use twincell_core::controller::Role;
use twincell_core::ids::{Controller, ProcessId, Time, Uuid};
use twincell_core::link::frame::{Frame, Mfc};
use twincell_core::list::List;
use twincell_core::{Core, Effect, Event};

/// A look into a copy of a core takes long: one in so many steps.
const LOOKS_EVERY: u64 = 64;

impl World {
    pub(super) fn process(&mut self, controller: Controller, id: u32) -> Option<&mut Process> {
        self.processes[controller.index()].as_mut().filter(|p| p.id == id)
    }

    pub(super) fn start(&mut self, controller: Controller) {
        let c = controller.index();
        if self.processes[c].is_some() || self.stopped[c] {
            return;
        }
        let id = self.next_process;
        self.next_process += 1;
        let process = ProcessId {
            boot: Uuid(1),
            pid_namespace: 1,
            pid: id,
            start_time: u64::from(id),
        };
        let voters = self.plan.shape.voters();
        let config = Config {
            controller,
            cell: Uuid(7),
            instance: Uuid(u128::from(id)),
            process,
            fresh_image: Uuid(1000 + u128::from(id)),
            geometry: self.geometry,
            timing: self.timing,
            disks: self.plan.shape.disks() as u16,
            quorum: List::from_slice(&voters),
        };
        self.log(|| format!("{controller}: process {id} starts"));
        self.agreed = None;
        let nv = self.nv[c].get_or_insert_with(|| NvMemory::new(self.geometry));
        if self.plan.has_old_ries()
            && !nv.is_flipped
            && let Err(what) = nv.age_ries(self.geometry)
        {
            self.fail(format!("{controller}: RIEs that were used often: {what}"));
        }
        let nv = self.nv_mut(c);
        let image = (!nv.image.uuid.is_nil()).then(|| nv.image.clone());
        let core = Core::new(config, image);
        self.processes[c] = Some(Process::new(id, core, self.geometry, &voters));
        if let Some(delay) = self.ends_after_start[c].take() {
            self.after(delay, Happening::Fault(Fault::Crash(controller)));
        }
        self.deliver(controller, id, Event::Start);
        self.maybe_open_link();
    }

    /// Hands an event to a process, and carries out what it wants.
    pub(super) fn deliver(&mut self, controller: Controller, id: u32, event: Event) {
        self.deliver_with(controller, id, event, &[], &[]);
    }

    /// The same, with the messages and the payload of a frame at hand.
    pub(super) fn deliver_with(
        &mut self,
        controller: Controller,
        id: u32,
        event: Event,
        mfcs: &[Mfc],
        payload: &[u64],
    ) {
        let now = self.now;
        let local = self.clocks[controller.index()].at(now);
        let Some(process) = self.process(controller, id) else {
            return;
        };
        if process.paused_until > now {
            process.backlog.push_back(event);
            return;
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.push_back(event);
        let mut effects = std::mem::take(&mut self.effects);
        let step = self.step;
        let crowded = self.plan.crowded && self.random.one_in(2);
        while let Some(event) = ready.pop_front() {
            event.hash(&mut self.digest);
            self.report.marks.event(&event, mfcs);
            self.tell_event(controller, &event, mfcs);
            if let Event::Manage { request, .. } = event {
                self.note_heard(controller, request);
            }
            if std::mem::take(&mut self.trapped) {
                return self.crash(controller);
            }
            let Some(process) = self.process(controller, id) else {
                return;
            };
            // What came too early is handled with what comes in its turn.
            let has_messages = has_messages(&event);
            let may_end_link = has_messages && mfcs.iter().any(may_end_a_link);
            let faultless = has_messages
                && !may_end_link
                && !process.holds_what_may_end_a_link
                && process.core.cell_view().role != Role::Stopping
                && !ends_link_anyway(process, step, Time(local));
            if let Event::Persisted { token } = event {
                process.commits.retain(|c| c.token != Some(token));
            }
            process.phase = process.core.cell_view().phase;
            process.core.expect_more(crowded && event != Event::Tick);
            step(&mut process.core, Time(local), event, &mut effects);
            process.holds_what_may_end_a_link =
                process.core.holds_frames() && (process.holds_what_may_end_a_link || may_end_link);
            // A single path may be given up at any time.
            let ends_link = effects.iter().any(is_end_of_link);
            if faultless && ends_link && !process.core.cell_view().linked {
                self.fail(format!("{controller} takes offence at what a sound partner has sent"));
            }
            for effect in &effects {
                effect.hash(&mut self.digest);
                self.report.marks.effect(effect);
                if self.is_to_crash_before(controller, effect) {
                    return self.crash_at_point(controller);
                }
                self.tell_effect(controller, effect);
                self.notice_effect(controller, effect);
                self.check_calm(controller, effect);
                self.effects_done[controller.index()] += 1;
                self.carry_out(controller, id, effect, payload, &mut ready);
                if self.is_to_crash_now(controller, id) {
                    self.crash_at_point(controller);
                }
                if self.process(controller, id).is_none() {
                    return;
                }
            }
            effects.clear();
        }
        (self.effects, self.ready) = (effects, ready);
        let waits = self.process(controller, id).is_some_and(|p| p.core.awaits_more());
        if waits {
            let delay = self.random.between(US, 200 * US);
            self.after(delay, Happening::Event(controller, id, Box::new(Event::Tick)));
        } else if self.number.is_multiple_of(LOOKS_EVERY) {
            self.check_all_is_done(controller, id);
        }
        self.schedule_tick(controller, id);
    }

    /// What can be done at once is done: nobody waits until something else happens.
    fn check_all_is_done(&mut self, controller: Controller, id: u32) {
        if let Some(what) = self.process(controller, id).and_then(|p| p.core.left_undone()) {
            self.fail(format!("{controller} leaves undone: {what}: {}", self.state()));
        }
    }

    /// Whether the process is to end before it carries out this effect.
    fn is_to_crash_before(&mut self, controller: Controller, effect: &Effect) -> bool {
        let Some(process) = &mut self.processes[controller.index()] else {
            return false;
        };
        process.crash_before.is_some_and(|point| point.is_at(effect))
    }

    fn crash_at_point(&mut self, controller: Controller) {
        self.crash(controller);
        if let Some(delay) = self.partner_follows[controller.index()].take() {
            self.after(delay, Happening::Fault(Fault::Crash(controller.other())));
        }
    }

    /// Whether the process is to end now that an effect was carried out.
    fn is_to_crash_now(&mut self, controller: Controller, id: u32) -> bool {
        if std::mem::take(&mut self.trapped) {
            return true;
        }
        match self.process(controller, id).and_then(|p| p.crash_after.as_mut()) {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn schedule_tick(&mut self, controller: Controller, id: u32) {
        let (now, clock) = (self.now, self.clocks[controller.index()]);
        let Some(process) = self.process(controller, id) else {
            return;
        };
        if let Some(Time(at)) = process.core.next_deadline() {
            let at = clock.when(at, now);
            if process.tick_at == 0 || at < process.tick_at {
                process.tick_at = at;
                self.after(at - now, Happening::Tick(controller, id, at));
            }
        }
    }

    pub(super) fn crash(&mut self, controller: Controller) {
        if self.processes[controller.index()].is_none() {
            return;
        }
        self.note_loss(controller, false);
        self.kill(controller);
    }

    /// The partner ends it, for a reason that was a fault of its own.
    pub(super) fn kill(&mut self, controller: Controller) {
        self.fall(controller);
        self.restart_later(controller);
    }

    /// It ends, whatever comes after that.
    pub(super) fn fall(&mut self, controller: Controller) {
        self.log(|| format!("{controller}: crashes"));
        self.tell(controller, format!("{controller} ends"));
        self.end(controller);
        self.check_image(controller);
    }

    pub(super) fn restart_later(&mut self, controller: Controller) {
        let restart = if self.healing {
            Some((MS, 10 * MS))
        } else {
            self.plan.restart
        };
        let Some((low, high)) = restart else { return };
        let mut delay = self.random.between(low, high);
        if let Some((of, most)) = self.plan.long_absence
            && !self.healing
            && self.random.one_in(of)
        {
            delay += self.random.below(most);
        }
        self.after(delay, Happening::Start(controller));
    }

    /// The process is gone: its connections break; what it has submitted to disks still lands.
    pub(super) fn end(&mut self, controller: Controller) {
        let Some(process) = self.processes[controller.index()].take() else {
            return;
        };
        for attempt in process.commands.values() {
            let delay = self.random.between(50 * US, 2 * MS);
            self.after(delay, Happening::PathFails(*attempt));
        }
        self.wire.process_is_gone(controller);
        self.close_link(Some(controller));
    }

    pub(super) fn close_hosts(&mut self, controller: Controller, ready: &mut VecDeque<Event>) {
        let process = self.processes[controller.index()].as_mut().expect("it wants something");
        process.serves = false;
        let commands = process.commands.clone();
        for (id, attempt) in commands {
            ready.push_back(Event::HostAbort { id });
            self.fetch_fails(attempt, id, ready);
            let delay = self.random.between(50 * US, 2 * MS);
            self.after(delay, Happening::PathFails(attempt));
        }
    }

    pub(super) fn resume(&mut self, controller: Controller, id: u32) {
        let (now, drains) = (self.now, self.plan.drains);
        let Some(process) = self.process(controller, id) else {
            return;
        };
        if drains && process.paused_until > now {
            // Another pause goes on, and what waits in the sockets is for its end.
            return;
        }
        process.paused_until = 0;
        let backlog = std::mem::take(&mut process.backlog);
        self.log(|| format!("{controller}: resumes"));
        // Its partner may have waited for just too long.
        self.wire.troubled_at = now;
        // Of errors that came meanwhile it hears only now.
        for disk in &mut self.shelf.disks {
            disk.failed_at = disk.failed_at.map(|at| at.max(self.now));
        }
        for event in backlog {
            self.deliver(controller, id, event);
        }
        self.deliver(controller, id, Event::Tick);
    }
}

fn is_end_of_link(effect: &Effect) -> bool {
    matches!(effect, Effect::LinkClose { .. })
}

/// Whether something is overdue, as when the clock has jumped, for which the link ends whatever arrives.
fn ends_link_anyway(process: &Process, step: Step, now: Time) -> bool {
    if process.core.next_deadline().is_none_or(|at| at >= now) {
        return false;
    }
    let mut effects = Vec::new();
    step(&mut process.core.clone(), now, Event::Tick, &mut effects);
    effects.iter().any(is_end_of_link)
}

fn has_messages(event: &Event) -> bool {
    let Event::LinkFrame { frame, .. } = event else {
        return false;
    };
    matches!(frame, Frame::Messages(_))
}

/// A controller always takes messages from a sound partner, unless it is about to stop. Not so those that ask to join or say
/// that a copy is not level, which may be refused, and a new record, which may mean that all begins anew.
fn may_end_a_link(mfc: &Mfc) -> bool {
    matches!(mfc, Mfc::Attach { .. } | Mfc::Leveled(_) | Mfc::RecordIs(_))
}
