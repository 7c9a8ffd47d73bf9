//! An order to stop. The core takes it as a request that it may refuse, and forgets it when it starts anew; the engine
//! remembers it, and asks again until the core stops.

use twincell_core::ids::{Nanos, RequestId, Time};
use twincell_core::manage::{ManageError, ManageReply};

/// How long a core that is busy, as it is while it decides what it is to be, is left alone.
const ASK_AGAIN: Nanos = Nanos::from_millis(20);
/// The same of one that has refused for another reason, which it had to ask its partner for.
const ASK_AGAIN_LATER: Nanos = Nanos::from_millis(1000);

/// Whether the controller is to stop, and how far that is.
#[derive(Debug, Default)]
pub(crate) struct StopOrder {
    given: bool,
    /// What the core was asked and has not answered.
    asked: Option<RequestId>,
    ask_at: Option<Time>,
    /// Why the core did not stop when it was last asked.
    refusal: Option<ManageError>,
}

impl StopOrder {
    /// It is to stop: the core is asked as soon as may be.
    pub(crate) fn give(&mut self, now: Time) {
        if !self.given {
            self.given = true;
            self.hurry(now);
        }
    }

    /// Whether it was given. It is not taken back.
    pub(crate) fn is_given(&self) -> bool {
        self.given
    }

    /// What the controller is to be is decided: it is not to serve for as long as it was left alone.
    pub(crate) fn hurry(&mut self, now: Time) {
        if self.asked.is_none() {
            self.ask_at = Some(now);
        }
    }

    /// When the core is to be asked.
    pub(crate) fn ask_at(&self) -> Option<Time> {
        self.ask_at
    }

    /// The core is being asked.
    pub(crate) fn ask(&mut self, request: RequestId) {
        (self.asked, self.ask_at) = (Some(request), None);
    }

    /// The core has answered a request: why it does not stop, if that was this one and it had not said so before.
    pub(crate) fn answered(
        &mut self,
        request: RequestId,
        result: Result<ManageReply, ManageError>,
        now: Time,
    ) -> Option<ManageError> {
        self.asked.take_if(|asked| *asked == request)?;
        let error = result.err()?;
        let pause = match error {
            ManageError::Busy | ManageError::Unknown => ASK_AGAIN,
            _ => ASK_AGAIN_LATER,
        };
        self.ask_at = Some(now + pause);
        let before = self.refusal.replace(error);
        (before != Some(error)).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(5);
    const FIRST: RequestId = RequestId(1);

    #[test]
    fn whoever_is_refused_asks_again() {
        let mut order = StopOrder::default();
        assert_eq!((order.is_given(), order.ask_at()), (false, None));
        order.give(NOW);
        assert_eq!((order.is_given(), order.ask_at()), (true, Some(NOW)));
        order.ask(FIRST);
        order.give(NOW);
        order.hurry(NOW);
        assert_eq!(order.ask_at(), None, "one question at a time");
        let busy = Err(ManageError::Busy);
        assert_eq!(
            order.answered(RequestId(7), busy, NOW),
            None,
            "an answer to somebody else"
        );
        assert_eq!(order.answered(FIRST, busy, NOW), Some(ManageError::Busy));
        assert_eq!(order.ask_at(), Some(NOW + ASK_AGAIN));
        order.hurry(NOW);
        assert_eq!(order.ask_at(), Some(NOW));
        order.ask(FIRST);
        assert_eq!(order.answered(FIRST, busy, NOW), None, "it is told once");
        assert_eq!(order.ask_at(), Some(NOW + ASK_AGAIN));
    }

    #[test]
    fn whoever_is_heard_asks_no_more() {
        let mut order = StopOrder::default();
        order.give(NOW);
        order.ask(FIRST);
        assert_eq!(order.answered(FIRST, Ok(ManageReply::Stopping), NOW), None);
        assert_eq!((order.is_given(), order.ask_at()), (true, None));
    }
}
