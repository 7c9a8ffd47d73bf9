//! Names of paths to a LUN.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::device::Device;
use crate::error::Error;
use crate::iscsi::Disk;
use crate::nbd::Nbd;

/// One path to a LUN: `iscsi://HOST:PORT/IQN/LUN` or `nbd://HOST:PORT/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Url {
    /// Through an iSCSI portal.
    Iscsi {
        /// `HOST:PORT`
        address: String,
        /// Target name.
        target: String,
        /// Logical unit number.
        lun: u16,
    },
    /// Through an NBD server.
    Nbd {
        /// `HOST:PORT`
        address: String,
        /// Name of the export.
        export: String,
    },
}

impl Url {
    /// Connects. `timeout` is for that, and later for each request.
    pub fn connect(&self, timeout: Duration) -> Result<Box<dyn Device>, Error> {
        Ok(match self {
            Url::Iscsi { address, target, lun } => Box::new(Disk::connect(address, target, *lun, timeout)?),
            Url::Nbd { address, export } => Box::new(Nbd::connect(address, export, timeout)?),
        })
    }

    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        match self {
            Url::Iscsi { address, .. } | Url::Nbd { address, .. } => address,
        }
    }
}

/// Why a text is not a [`Url`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadUrl(String);

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is neither iscsi://HOST:PORT/IQN/LUN nor nbd://HOST:PORT/NAME",
            self.0
        )
    }
}

impl std::error::Error for BadUrl {}

impl FromStr for Url {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Url, BadUrl> {
        parse(text).ok_or_else(|| BadUrl(text.to_string()))
    }
}

fn parse(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://")?;
    let (address, path) = rest.split_once('/')?;
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    if host.is_empty() {
        return None;
    }
    let address = address.to_string();
    match scheme {
        "iscsi" => {
            let (target, lun) = path.split_once('/')?;
            let lun: u16 = lun.parse().ok()?;
            (!target.is_empty() && lun < 1 << 14).then(|| Url::Iscsi {
                address,
                target: target.to_string(),
                lun,
            })
        }
        "nbd" => Some(Url::Nbd {
            address,
            export: path.to_string(),
        }),
        _ => None,
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Url::Iscsi { address, target, lun } => write!(f, "iscsi://{address}/{target}/{lun}"),
            Url::Nbd { address, export } => write!(f, "nbd://{address}/{export}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in [
            "iscsi://127.0.0.1:3260/iqn.2026-11.io.twincell:c/7",
            "nbd://[::1]:10809/vol",
            "nbd://h:1/",
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "nbd://",
            "nbd://h/x",
            "nbd://:1/x",
            "http://h:1/x",
            "iscsi://h:1/iqn",
            "iscsi://h:1/iqn/16384",
        ] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }
}
