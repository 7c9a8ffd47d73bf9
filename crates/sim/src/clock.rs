//! A controller's clock: it has its own beginning, may run a little fast or slow, and may jump forward.

/// Thousandths of true time.
const TRUE: u64 = 1000;

/// A clock, in nanoseconds. It never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The true time from which on the rate holds, and what the clock said then.
    since: u64,
    said: u64,
    /// Thousandths of true time.
    rate: u64,
}

impl Clock {
    /// A true clock that is ahead by `ahead`.
    pub fn ahead(ahead: u64) -> Clock {
        Clock {
            since: 0,
            said: ahead,
            rate: TRUE,
        }
    }

    /// What it says at a true time.
    pub fn at(&self, now: u64) -> u64 {
        self.said + (now - self.since) * self.rate / TRUE
    }

    /// The true time at which it will say `time`, not before `now`.
    pub fn when(&self, time: u64, now: u64) -> u64 {
        let left = time.saturating_sub(self.said);
        (self.since + (left * TRUE).div_ceil(self.rate)).max(now)
    }

    /// From now on it runs at so many thousandths of true time.
    pub fn set_rate(&mut self, now: u64, rate: u64) {
        self.said = self.at(now);
        self.since = now;
        self.rate = rate.max(1);
    }

    /// It jumps forward.
    pub fn jump(&mut self, now: u64, by: u64) {
        self.said = self.at(now) + by;
        self.since = now;
    }

    /// From now on it is a true clock again, as far as its rate goes.
    pub fn heal(&mut self, now: u64) {
        self.set_rate(now, TRUE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_reached_when_it_is_said_to_be() {
        for rate in [200, 950, 1000, 1050, 5000] {
            let mut clock = Clock::ahead(77);
            clock.set_rate(1_000, rate);
            clock.jump(2_000, 500);
            for time in [0, 3_000, 9_999, 123_456] {
                let when = clock.when(time, 2_000);
                assert!(clock.at(when) >= time, "rate {rate}: {time} at {when}");
                assert!(when == 2_000 || clock.at(when - 1) < time, "not earlier than that");
            }
        }
    }
}
