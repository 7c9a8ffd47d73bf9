//! What waits for a moment in what a controller does comes then.

use super::World;
use super::queue::Happening;
use crate::fault::Fault;
use crate::instant::Instant;
use crate::trigger::Trigger;
use twincell_core::Effect;
use twincell_core::ids::Controller;

impl World {
    /// A controller is about to carry out an effect.
    pub(super) fn notice_effect(&mut self, controller: Controller, effect: &Effect) {
        if self.triggers.is_empty() {
            return;
        }
        let mut found = Vec::new();
        if let Some(process) = &self.processes[controller.index()] {
            Instant::of_effect(effect, &process.core, |i| found.push(i));
        }
        for instant in found {
            self.notice(controller, instant);
        }
    }

    /// A moment at a controller has come.
    pub(super) fn notice(&mut self, controller: Controller, instant: Instant) {
        self.report.marks.instant(instant);
        if self.healing {
            return;
        }
        for n in 0..self.triggers.len() {
            let trigger = &mut self.triggers[n];
            let waits = trigger.times > 0 && self.now >= super::BEGINNING + trigger.from;
            if (trigger.at, trigger.of) != (instant, controller) || !waits {
                continue;
            }
            if trigger.skip > 0 {
                trigger.skip -= 1;
                continue;
            }
            if self.plan.in_a_row && self.triggers[..n].iter().any(|t| t.at != instant && t.times > 0) {
                continue;
            }
            self.triggers[n].times -= 1;
            self.spring(self.triggers[n]);
        }
    }

    /// What ends the controller itself does so within this step.
    fn spring(&mut self, trigger: Trigger) {
        let Trigger {
            at, of, within, fault, ..
        } = trigger;
        self.log(|| format!("*** at {at:?} of {of}"));
        match fault {
            Fault::CrashAfterEffects(c, _) if c == of && within == 0 => self.fault(fault),
            _ => {
                let delay = self.random.below(within + 1);
                self.after(delay, Happening::Fault(fault));
            }
        }
    }
}
