//! Sense data (SPC-4, 4.5)

/// Which byte of the CDB or of the parameter list was wrong (SPC-4, 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A byte of the CDB.
    Cdb(u16),
    /// A byte of the parameter list.
    Parameter(u16),
}

/// Why a command ended with CHECK CONDITION, or what REQUEST SENSE tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// The field in question, where there is one.
    pub field: Option<Field>,
}

const NOT_READY: u8 = 0x02;
const MEDIUM_ERROR: u8 = 0x03;
const ILLEGAL_REQUEST: u8 = 0x05;
const UNIT_ATTENTION: u8 = 0x06;
const ABORTED_COMMAND: u8 = 0x0b;
const MISCOMPARE: u8 = 0x0e;

/// Bytes of fixed format sense data without anything after the sense-key specific bytes.
pub const FIXED_BYTES: usize = 18;

impl Sense {
    const fn new(key: u8, asc: u8, ascq: u8) -> Sense {
        Sense {
            key,
            asc,
            ascq,
            field: None,
        }
    }

    /// Nothing to report.
    pub const NONE: Sense = Sense::new(0, 0, 0);
    /// LOGICAL UNIT NOT ACCESSIBLE, ASYMMETRIC ACCESS STATE TRANSITION
    pub const TRANSITION: Sense = Sense::new(NOT_READY, 0x04, 0x0a);
    /// WRITE ERROR
    pub const WRITE_ERROR: Sense = Sense::new(MEDIUM_ERROR, 0x0c, 0x00);
    /// UNRECOVERED READ ERROR
    pub const READ_ERROR: Sense = Sense::new(MEDIUM_ERROR, 0x11, 0x00);
    /// INVALID FIELD IN COMMAND INFORMATION UNIT: the host offers less data than its CDB names.
    pub const INVALID_INFORMATION_UNIT: Sense = Sense::new(ILLEGAL_REQUEST, 0x0e, 0x03);
    /// PARAMETER LIST LENGTH ERROR
    pub const PARAMETER_LIST_LENGTH: Sense = Sense::new(ILLEGAL_REQUEST, 0x1a, 0x00);
    /// INVALID COMMAND OPERATION CODE
    pub const INVALID_OPERATION_CODE: Sense = Sense::new(ILLEGAL_REQUEST, 0x20, 0x00);
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE
    pub const OUT_OF_RANGE: Sense = Sense::new(ILLEGAL_REQUEST, 0x21, 0x00);
    /// LOGICAL UNIT NOT SUPPORTED
    pub const NO_SUCH_LUN: Sense = Sense::new(ILLEGAL_REQUEST, 0x25, 0x00);
    /// SAVING PARAMETERS NOT SUPPORTED
    pub const SAVING_NOT_SUPPORTED: Sense = Sense::new(ILLEGAL_REQUEST, 0x39, 0x00);
    /// INVALID MESSAGE ERROR: a task attribute that this target does not support.
    pub const TASK_ATTRIBUTE: Sense = Sense::new(ILLEGAL_REQUEST, 0x49, 0x00);
    /// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED
    pub const POWER_ON: Sense = Sense::new(UNIT_ATTENTION, 0x29, 0x00);
    /// BUS DEVICE RESET FUNCTION OCCURRED
    pub const RESET: Sense = Sense::new(UNIT_ATTENTION, 0x29, 0x03);
    /// ASYMMETRIC ACCESS STATE CHANGED
    pub const ACCESS_STATE_CHANGED: Sense = Sense::new(UNIT_ATTENTION, 0x2a, 0x06);
    /// CAPACITY DATA HAS CHANGED
    pub const CAPACITY_CHANGED: Sense = Sense::new(UNIT_ATTENTION, 0x2a, 0x09);
    /// REPORTED LUNS DATA HAS CHANGED
    pub const LUNS_CHANGED: Sense = Sense::new(UNIT_ATTENTION, 0x3f, 0x0e);
    /// Unexpected unsolicited data (RFC 7143, 11.4.7.2)
    pub const UNEXPECTED_UNSOLICITED_DATA: Sense = Sense::new(ABORTED_COMMAND, 0x0c, 0x0c);
    /// Incorrect amount of data (RFC 7143, 11.4.7.2)
    pub const INCORRECT_AMOUNT_OF_DATA: Sense = Sense::new(ABORTED_COMMAND, 0x0c, 0x0d);
    /// MISCOMPARE DURING VERIFY OPERATION
    pub const MISCOMPARE: Sense = Sense::new(MISCOMPARE, 0x1d, 0x00);

    /// INVALID FIELD IN CDB, at `byte` of it.
    pub const fn invalid_field_in_cdb(byte: u16) -> Sense {
        Sense {
            field: Some(Field::Cdb(byte)),
            ..Sense::new(ILLEGAL_REQUEST, 0x24, 0x00)
        }
    }

    /// INVALID FIELD IN PARAMETER LIST, at `byte` of it.
    pub const fn invalid_field_in_parameter_list(byte: u16) -> Sense {
        Sense {
            field: Some(Field::Parameter(byte)),
            ..Sense::new(ILLEGAL_REQUEST, 0x26, 0x00)
        }
    }

    /// Fixed format, current (SPC-4, 4.5.3).
    pub fn fixed(&self) -> [u8; FIXED_BYTES] {
        let mut data = [0; FIXED_BYTES];
        data[0] = 0x70;
        data[2] = self.key;
        data[7] = (FIXED_BYTES - 8) as u8;
        data[12] = self.asc;
        data[13] = self.ascq;
        data[15..18].copy_from_slice(&self.key_specific());
        data
    }

    /// Descriptor format, current (SPC-4, 4.5.2).
    pub fn descriptor(&self) -> Vec<u8> {
        let mut data = vec![0x72, self.key, self.asc, self.ascq, 0, 0, 0, 0];
        if self.field.is_some() {
            let [flags, high, low] = self.key_specific();
            data.extend_from_slice(&[0x02, 0x06, 0, 0, flags, high, low, 0]);
            data[7] = 8;
        }
        data
    }

    /// The sense-key specific bytes of an ILLEGAL REQUEST: SKSV, C/D and the field pointer.
    fn key_specific(&self) -> [u8; 3] {
        let (flags, byte) = match self.field {
            None => return [0; 3],
            Some(Field::Cdb(byte)) => (0xc0, byte),
            Some(Field::Parameter(byte)) => (0x80, byte),
        };
        let [high, low] = byte.to_be_bytes();
        [flags, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format() {
        assert_eq!(
            Sense::invalid_field_in_cdb(6).fixed(),
            [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xc0, 0, 6]
        );
        assert_eq!(
            Sense::POWER_ON.fixed(),
            [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn descriptor_format() {
        assert_eq!(Sense::LUNS_CHANGED.descriptor(), [0x72, 6, 0x3f, 0x0e, 0, 0, 0, 0]);
        assert_eq!(
            Sense::invalid_field_in_parameter_list(0x104).descriptor(),
            [0x72, 5, 0x26, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0x80, 1, 4, 0]
        );
    }
}
