//! RTP and RTCP at the edge of the forwarding core: bytes to packets and back, repair, reports.
//!
//! | module | does |
//! |---|---|
//! | [`packet`] | reads and writes RTP packets |
//! | [`rtcp`] | reads and writes the RTCP packets that matter here |
//! | [`receive`] | one received stream: what is missing (NACK), what is repaired (RTX), receiver reports |
//! | [`history`] | the recent packets of one track, shared by all its subscribers |
//! | [`send`] | one sent stream: labels, what can be sent again, RTX, sender reports |
//! | [`arrival`] | transport-wide feedback, from which publishers estimate their bandwidth |

pub mod arrival;
pub mod history;
pub mod packet;
pub mod receive;
pub mod rtcp;
pub mod send;
