//! The link to the partner as an operator may see it.

use std::net::SocketAddr;
use std::time::Duration;
use twincell_core::link::path::{PathState, Why};

/// The link at one moment. The counts begin with the controller's last start, in place or as a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkSnapshot {
    /// The paths, in the order of the settings.
    pub paths: Vec<PathSnapshot>,
    /// Messages that were built.
    pub messages: u64,
    /// Frames that they left in, each counted once.
    pub frames: u64,
    /// Frames of them that left once more.
    pub resent: u64,
    /// Frames that came and were not the next, and were not kept.
    pub dropped: u64,
    /// Messages that were refused, because they belong to an exchange that is over.
    pub stale: u64,
    /// How often messages moved to another path.
    pub moves: u64,
}

/// A path to the partner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSnapshot {
    /// This controller's address.
    pub own: SocketAddr,
    /// The partner's.
    pub partner: SocketAddr,
    /// What it can be used for.
    pub state: PathState,
    /// From a heartbeat to its answer, the last time.
    pub round_trip: Option<Duration>,
    /// How long it has been as it is; `None` where it always was.
    pub since: Option<Duration>,
    /// Why its state last changed.
    pub why: String,
}

/// What the engine knows of the end of a path's last connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Why it ended.
    pub ended: Option<String>,
    /// Why the last try to connect again failed.
    pub refused: Option<String>,
}

impl Ends {
    /// Why a path is as it is, in words.
    pub(crate) fn told(&self, why: Why) -> String {
        let mut text = match (why, &self.ended) {
            (Why::NotYet, _) => "never connected".to_owned(),
            (Why::Opened, _) => "connected; no hello yet".to_owned(),
            (Why::Joined, _) => "the partner said hello".to_owned(),
            (Why::TookOver, _) => "took over when another path failed".to_owned(),
            (Why::Preferred, _) => "messages came back to it".to_owned(),
            (Why::Rests, _) => "messages went back to a path that comes first".to_owned(),
            (Why::Ended, Some(ended)) => format!("the connection ended: {ended}"),
            (Why::Ended, None) => "the connection ended".to_owned(),
            (Why::Silent, _) => "it did not answer while another path did".to_owned(),
            (Why::Spoils, _) => {
                "it answers, and data do not arrive whole on it: look for a bad card, cable or offload".to_owned()
            }
            (Why::OtherCache, _) => "the partner's cache has another size".to_owned(),
            (Why::Refused, _) => "the hello of the partner does not fit".to_owned(),
            (Why::LinkLost, _) => "the whole link was given up".to_owned(),
        };
        if let Some(refused) = &self.refused {
            text += &format!("; connecting: {refused}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_the_engine_knows_beside_what_the_core_does() {
        let mut ends = Ends::default();
        assert_eq!(ends.told(Why::Ended), "the connection ended");
        ends.ended = Some("by the partner".to_owned());
        ends.refused = Some("Connection refused".to_owned());
        assert_eq!(
            ends.told(Why::Ended),
            "the connection ended: by the partner; connecting: Connection refused"
        );
        ends.refused = None;
        assert_eq!(ends.told(Why::Joined), "the partner said hello");
    }
}
