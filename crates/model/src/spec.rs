//! What hosts may see: the two blocks as one atomic register. Kept is every state that the register may be in, given all
//! answers so far; if none is left, the answers contradict each other: a write was lost, torn, or taken back.

/// What the two blocks hold: 0 is "never written", n the n-th write.
pub type Value = [u8; 2];

/// Most writes.
pub const WRITES: usize = 2;

/// One way in which all that hosts have seen can have come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Possible {
    /// The writes that have taken effect, one bit each.
    done: u8,
    value: Value,
    /// What the read in progress has found, if it has looked.
    found: Option<Value>,
}

/// Every way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Register {
    possible: Vec<Possible>,
    /// Writes that were begun, one bit each, and which of the two blocks each writes.
    begun: u8,
    blocks: [[bool; 2]; WRITES],
    reading: bool,
}

impl Register {
    /// Nothing was written. Write n will write `blocks[n]`.
    pub fn new(blocks: [[bool; 2]; WRITES]) -> Register {
        Register {
            possible: vec![Possible {
                done: 0,
                value: [0; 2],
                found: None,
            }],
            begun: 0,
            blocks,
            reading: false,
        }
    }

    /// Adds what can take effect at any moment: writes in progress, and the look of the read in progress.
    fn close(&mut self) {
        let mut at = 0;
        while at < self.possible.len() {
            let from = self.possible[at];
            at += 1;
            let mut more = Vec::new();
            for write in (0..WRITES).filter(|w| self.begun & !from.done & 1 << w != 0) {
                let mut next = from;
                next.done |= 1 << write;
                for (value, covered) in next.value.iter_mut().zip(self.blocks[write]) {
                    if covered {
                        *value = write as u8 + 1;
                    }
                }
                more.push(next);
            }
            if self.reading && from.found.is_none() {
                let found = Some(from.value);
                more.push(Possible { found, ..from });
            }
            more.retain(|m| !self.possible.contains(m));
            self.possible.extend(more);
        }
        self.possible.sort_unstable();
        self.possible.dedup();
    }

    /// A write begins. It may take effect at any time from now on.
    pub fn begin_write(&mut self, write: usize) {
        self.begun |= 1 << write;
        self.close();
    }

    /// A write is acknowledged: it has taken effect. An error if that cannot be.
    pub fn acknowledge(&mut self, write: usize) -> Result<(), String> {
        self.possible.retain(|p| p.done & 1 << write != 0);
        self.sound(|| format!("write {} is acknowledged, which cannot be", write + 1))
    }

    /// A read begins.
    pub fn begin_read(&mut self) {
        self.reading = true;
        self.close();
    }

    /// The read ends with `value`.
    pub fn end_read(&mut self, value: Value) -> Result<(), String> {
        self.possible.retain(|p| p.found == Some(value));
        self.reading = false;
        for p in &mut self.possible {
            p.found = None;
        }
        self.possible.sort_unstable();
        self.possible.dedup();
        self.sound(|| format!("a read returns {value:?}"))
    }

    /// The read ends without an answer.
    pub fn give_up_read(&mut self) {
        self.reading = false;
        for p in &mut self.possible {
            p.found = None;
        }
        self.possible.sort_unstable();
        self.possible.dedup();
    }

    fn sound(&self, what: impl Fn() -> String) -> Result<(), String> {
        if self.possible.is_empty() { Err(what()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a read that begins now may return `value`.
    fn may_return(register: &Register, value: Value) -> bool {
        let mut later = register.clone();
        later.begin_read();
        later.end_read(value).is_ok()
    }

    fn register() -> Register {
        Register::new([[true, true], [true, true]])
    }

    #[test]
    fn an_acknowledged_write_stays() {
        let mut r = register();
        r.begin_write(0);
        assert!(may_return(&r, [0, 0]) && may_return(&r, [1, 1]) && !may_return(&r, [1, 0]));
        r.acknowledge(0).unwrap();
        assert!(!may_return(&r, [0, 0]));
        r.begin_write(1);
        r.acknowledge(1).unwrap();
        assert!(may_return(&r, [2, 2]) && !may_return(&r, [1, 1]));
    }

    #[test]
    fn two_writes_at_once_come_in_either_order() {
        let mut r = register();
        r.begin_write(0);
        r.begin_write(1);
        r.acknowledge(0).unwrap();
        r.acknowledge(1).unwrap();
        assert!(may_return(&r, [2, 2]) && may_return(&r, [1, 1]) && !may_return(&r, [0, 0]));
    }

    #[test]
    fn what_a_read_has_shown_does_not_go_back() {
        let mut r = register();
        r.begin_write(0);
        r.begin_read();
        r.end_read([1, 1]).unwrap();
        assert!(!may_return(&r, [0, 0]));
    }

    #[test]
    fn a_read_may_see_what_was_there_when_it_began() {
        let mut r = register();
        r.begin_read();
        r.begin_write(0);
        r.acknowledge(0).unwrap();
        assert!(r.clone().end_read([0, 0]).is_ok());
        assert!(r.clone().end_read([1, 1]).is_ok());
        assert!(r.end_read([1, 0]).is_err());
    }
}
