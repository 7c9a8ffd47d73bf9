//! Text keys and how each is negotiated (RFC 7143, sections 6 and 13)

/// Data segments that this target takes, in bytes.
pub const MAX_RECV_DATA_SEGMENT_LENGTH: u32 = 262_144;
/// The longest sequence of data that this target takes or sends, in bytes.
const MAX_BURST_LENGTH: u32 = 1_048_576;
/// The most unsolicited data that this target takes for a command, in bytes.
const FIRST_BURST_LENGTH: u32 = 262_144;

/// What was negotiated, as far as it makes a difference here. Before that, the defaults of the standard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// CRC-32C after headers.
    pub header_digest: bool,
    /// CRC-32C after data segments.
    pub data_digest: bool,
    /// Data segments that the initiator takes, in bytes.
    pub max_recv_data_segment_length: u32,
    /// The longest solicited or Data-In sequence, in bytes.
    pub max_burst_length: u32,
    /// The most unsolicited data of a command, in bytes.
    pub first_burst_length: u32,
    /// No unsolicited Data-Out PDUs.
    pub initial_r2t: bool,
    /// Data may come with the command.
    pub immediate_data: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            header_digest: false,
            data_digest: false,
            max_recv_data_segment_length: 8192,
            max_burst_length: 262_144,
            first_burst_length: 65_536,
            initial_r2t: true,
            immediate_data: true,
        }
    }
}

/// The function that makes the result of an offer.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// `None` or `CRC32C`, whichever of them the initiator prefers.
    Digest,
    /// Yes where both say so.
    And(bool),
    /// Yes where one says so.
    Or(bool),
    /// The smaller number; least, most, ours.
    Minimum(u32, u32, u32),
    /// The larger number; least, most, ours.
    Maximum(u32, u32, u32),
    /// What we answer whatever is offered.
    Always(&'static str),
}

/// Bound of lengths of data: 2^24 - 1.
const LENGTH_MAX: u32 = 0xff_ffff;

const RULES: [(&str, Rule); 20] = [
    ("HeaderDigest", Rule::Digest),
    ("DataDigest", Rule::Digest),
    ("MaxConnections", Rule::Minimum(1, 65_535, 1)),
    ("InitialR2T", Rule::Or(false)),
    ("ImmediateData", Rule::And(true)),
    ("MaxBurstLength", Rule::Minimum(512, LENGTH_MAX, MAX_BURST_LENGTH)),
    ("FirstBurstLength", Rule::Minimum(512, LENGTH_MAX, FIRST_BURST_LENGTH)),
    ("DefaultTime2Wait", Rule::Maximum(0, 3600, 0)),
    ("DefaultTime2Retain", Rule::Minimum(0, 3600, 0)),
    ("MaxOutstandingR2T", Rule::Minimum(1, 65_535, 1)),
    ("DataPDUInOrder", Rule::Or(true)),
    ("DataSequenceInOrder", Rule::Or(true)),
    ("ErrorRecoveryLevel", Rule::Minimum(0, 2, 0)),
    ("iSCSIProtocolLevel", Rule::Minimum(0, 31, 1)),
    ("TaskReporting", Rule::Always("RFC3720")),
    // Obsolete; what is to be answered nevertheless stands in 13.25.
    ("IFMarker", Rule::Always("No")),
    ("OFMarker", Rule::Always("No")),
    ("IFMarkInt", Rule::Always("Reject")),
    ("OFMarkInt", Rule::Always("Reject")),
    ("AuthMethod", Rule::Always("None")),
];

/// The negotiation of one login: what came of it so far.
#[derive(Clone, Debug, Default)]
pub struct Negotiation {
    /// The results.
    pub parameters: Parameters,
    /// Bit n: rule n has been used. No key is negotiated twice (6.3).
    used: u32,
}

/// A key was offered a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfferedTwice;

impl Negotiation {
    /// Takes the initiator's offer for a key that is negotiated, and appends the answer.
    ///
    /// # Errors
    /// [`OfferedTwice`], which ends the login.
    pub fn offer(&mut self, key: &str, value: &str, reply: &mut Vec<u8>) -> Result<(), OfferedTwice> {
        let Some(place) = RULES.iter().position(|(k, _)| *k == key) else {
            put(reply, key, "NotUnderstood");
            return Ok(());
        };
        if self.used & 1 << place != 0 {
            return Err(OfferedTwice);
        }
        self.used |= 1 << place;
        match RULES[place].1 {
            Rule::Digest => self.digest(key, value, reply),
            Rule::And(ours) => self.boolean(key, value, |theirs| theirs && ours, reply),
            Rule::Or(ours) => self.boolean(key, value, |theirs| theirs || ours, reply),
            Rule::Minimum(least, most, ours) => self.number(key, value, (least, most), |n| n.min(ours), reply),
            Rule::Maximum(least, most, ours) => self.number(key, value, (least, most), |n| n.max(ours), reply),
            Rule::Always(answer) => put(reply, key, answer),
        }
        Ok(())
    }

    fn digest(&mut self, key: &str, value: &str, reply: &mut Vec<u8>) {
        let Some(choice) = value.split(',').find(|v| matches!(*v, "None" | "CRC32C")) else {
            return put(reply, key, "Reject");
        };
        let is_on = choice == "CRC32C";
        match key {
            "HeaderDigest" => self.parameters.header_digest = is_on,
            _ => self.parameters.data_digest = is_on,
        }
        put(reply, key, choice);
    }

    fn boolean(&mut self, key: &str, value: &str, result: impl Fn(bool) -> bool, reply: &mut Vec<u8>) {
        let theirs = match value {
            "Yes" => true,
            "No" => false,
            _ => return put(reply, key, "Reject"),
        };
        let result = result(theirs);
        match key {
            "InitialR2T" => self.parameters.initial_r2t = result,
            "ImmediateData" => self.parameters.immediate_data = result,
            _ => {}
        }
        put(reply, key, if result { "Yes" } else { "No" });
    }

    fn number(
        &mut self,
        key: &str,
        value: &str,
        (least, most): (u32, u32),
        result: impl Fn(u32) -> u32,
        reply: &mut Vec<u8>,
    ) {
        let Some(theirs) = number(value).filter(|n| (least..=most).contains(n)) else {
            return put(reply, key, "Reject");
        };
        let result = result(theirs);
        match key {
            "MaxBurstLength" => self.parameters.max_burst_length = result,
            "FirstBurstLength" => self.parameters.first_burst_length = result,
            _ => {}
        }
        put(reply, key, &result.to_string());
    }
}

impl Parameters {
    /// Takes the initiator's declaration of MaxRecvDataSegmentLength; `None` if it is not a length (13.12).
    pub fn declare_segment_length(&mut self, value: &str) -> Option<()> {
        let length = number(value).filter(|n| (512..=LENGTH_MAX).contains(n))?;
        self.max_recv_data_segment_length = length;
        Some(())
    }
}

/// Whether `key` is negotiated, which happens only during login.
pub fn is_negotiated(key: &str) -> bool {
    RULES.iter().any(|(k, _)| *k == key)
}

/// Appends a key and its value.
pub fn put(text: &mut Vec<u8>, key: &str, value: &str) {
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    text.push(0);
}

/// A numerical value (6.1): decimal, or hexadecimal after `0x`.
fn number(value: &str) -> Option<u32> {
    let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    match hex {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if value.bytes().all(|b| b.is_ascii_digit()) => value.parse().ok(),
        None => None,
    }
}

/// Longest key in bytes (6.1).
const KEY_BYTES_MAX: usize = 63;

/// The keys and values of a text; `None` if it is not of that form.
pub fn pairs(text: &[u8]) -> Option<Vec<(&str, &str)>> {
    let text = std::str::from_utf8(text).ok()?;
    let lines = text.split('\0').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            line.split_once('=')
                .filter(|(key, _)| !key.is_empty() && key.len() <= KEY_BYTES_MAX)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(key: &str, value: &str) -> String {
        let mut reply = Vec::new();
        Negotiation::default()
            .offer(key, value, &mut reply)
            .expect("offered once");
        String::from_utf8(reply).expect("text")
    }

    #[test]
    fn results() {
        for (key, value, expected) in [
            ("HeaderDigest", "CRC32C,None", "CRC32C"),
            ("HeaderDigest", "X-other,None,CRC32C", "None"),
            ("DataDigest", "X-other", "Reject"),
            ("MaxConnections", "8", "1"),
            ("MaxConnections", "0", "Reject"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "Yes", "Yes"),
            ("InitialR2T", "maybe", "Reject"),
            ("ImmediateData", "Yes", "Yes"),
            ("ImmediateData", "No", "No"),
            ("MaxBurstLength", "16776192", "1048576"),
            ("MaxBurstLength", "0x10000", "65536"),
            ("MaxBurstLength", "16777216", "Reject"),
            ("FirstBurstLength", "262144", "262144"),
            ("DefaultTime2Wait", "2", "2"),
            ("DefaultTime2Retain", "20", "0"),
            ("MaxOutstandingR2T", "16", "1"),
            ("DataPDUInOrder", "No", "Yes"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("iSCSIProtocolLevel", "2", "1"),
            ("OFMarker", "Yes", "No"),
            ("OFMarkInt", "2048~8192", "Reject"),
            ("X-com.example.key", "1", "NotUnderstood"),
        ] {
            assert_eq!(answer(key, value), format!("{key}={expected}\0"));
        }
    }

    #[test]
    fn twice_is_an_error_but_not_for_keys_that_nobody_knows() {
        let (mut negotiation, mut reply) = (Negotiation::default(), Vec::new());
        assert_eq!(negotiation.offer("InitialR2T", "No", &mut reply), Ok(()));
        assert_eq!(negotiation.offer("InitialR2T", "No", &mut reply), Err(OfferedTwice));
        assert_eq!(negotiation.offer("X-a", "1", &mut reply), Ok(()));
        assert_eq!(negotiation.offer("X-a", "1", &mut reply), Ok(()));
    }

    #[test]
    fn forms_of_text() {
        assert_eq!(pairs(b"A=1\0B=x=y\0\0"), Some(vec![("A", "1"), ("B", "x=y")]));
        assert_eq!(pairs(b""), Some(vec![]));
        assert_eq!(pairs(b"A\0"), None);
        assert_eq!(pairs(b"=1\0"), None);
        assert_eq!(pairs(b"\xff=1\0"), None);
        assert_eq!(number("0x1F"), Some(31));
        assert_eq!(number("+1"), None);
        assert_eq!(number("4294967296"), None);
    }
}
