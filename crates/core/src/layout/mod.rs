//! Where data lie: disks, PSEGs, RStores, LUNs (DESIGN section 8).
pub mod metadata;
