//! Byte formats of twincell: link frames, quorum slots, labels, metadata
