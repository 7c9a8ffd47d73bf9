//! Numbers of the NBD protocol, as its document (`doc/proto.md` of the NetworkBlockDevice project) defines them.
//! Everything on the wire is big-endian.

/// First magic of the server's greeting: `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second magic of the greeting and the magic of every option: `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Magic of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Magic of a request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Magic of a simple reply.
pub const REPLY_MAGIC: u32 = 0x6744_6698;

/// Handshake flags of the server: it speaks fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
/// Handshake flags of the server: it can leave out the zeroes after `NBD_OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 2;
/// The client speaks fixed newstyle.
pub const CLIENT_FIXED_NEWSTYLE: u32 = 1;
/// The client does not want the zeroes.
pub const CLIENT_NO_ZEROES: u32 = 2;

/// Bytes of the header of an option: magic, option, length.
pub const OPTION_HEADER: usize = 16;
/// Bytes of a request: magic, flags, type, cookie, offset, length.
pub const REQUEST_HEADER: usize = 28;
/// Bytes of a simple reply: magic, error, cookie.
pub const REPLY_HEADER: usize = 16;

/// Options of the client.
pub mod option {
    /// Enter transmission with this export; there is no way to refuse but to end the connection.
    pub const EXPORT_NAME: u32 = 1;
    /// End the connection.
    pub const ABORT: u32 = 2;
    /// Name all exports.
    pub const LIST: u32 = 3;
    /// Describe an export.
    pub const INFO: u32 = 6;
    /// Describe an export and enter transmission.
    pub const GO: u32 = 7;
}

/// Types of replies to options.
pub mod reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// One export, in answer to `LIST`.
    pub const SERVER: u32 = 2;
    /// One piece of information, in answer to `INFO` and `GO`.
    pub const INFO: u32 = 3;
    /// The option is not known here.
    pub const ERR_UNSUP: u32 = (1 << 31) + 1;
    /// The option's data make no sense.
    pub const ERR_INVALID: u32 = (1 << 31) + 3;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
}

/// Types of information on an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The name of the export.
    pub const NAME: u16 = 1;
    /// A description for people.
    pub const DESCRIPTION: u16 = 2;
    /// Smallest, best and largest size of a request.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod flag {
    /// The other flags mean something.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// `FLUSH` is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// `FUA` is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// A flush on one connection covers what was acknowledged on every connection.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
}

/// Types of requests.
pub mod command {
    /// Read.
    pub const READ: u16 = 0;
    /// Write; the data follow the request.
    pub const WRITE: u16 = 1;
    /// End the connection when everything before is answered; has no reply.
    pub const DISC: u16 = 2;
    /// Make what was acknowledged durable.
    pub const FLUSH: u16 = 3;
    /// Command flag: reply only when the data are durable.
    pub const FLAG_FUA: u16 = 1 << 0;
}

/// Errors of replies.
pub mod error {
    /// No error.
    pub const NONE: u32 = 0;
    /// The medium failed.
    pub const EIO: u32 = 5;
    /// The request makes no sense.
    pub const EINVAL: u32 = 22;
    /// A write beyond the end.
    pub const ENOSPC: u32 = 28;
    /// The export is going or gone.
    pub const ESHUTDOWN: u32 = 108;
}

/// The big-endian `u16` at `at`; the caller has checked the length.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The big-endian `u32` at `at`; the caller has checked the length.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

/// The big-endian `u64` at `at`; the caller has checked the length.
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}
