//! RTP and RTCP at the edge of the forwarding core: bytes to packets and back, repair, reports.
//!
//! | module | does |
//! |---|---|
//! | [`meter`] | counts and rates |
//! | [`packet`] | reads and writes RTP packets |
//! | [`rtcp`] | reads and writes the RTCP packets that matter here |
//! | [`receive`] | one received stream: what is missing (NACK), what is repaired (RTX), receiver reports |
//! | [`history`] | the recent packets of one track, shared by all its subscribers |
//! | [`send`] | one sent stream: labels, what can be sent again, RTX, sender reports |
//! | [`reported`] | what a client reports of one sent stream: loss, round-trip time |
//! | [`arrival`] | transport-wide feedback, from which publishers estimate their bandwidth |
//! | [`feedback`] | the same from subscribers, from which theirs is estimated |

pub mod arrival;
pub mod feedback;
pub mod history;
pub mod meter;
pub mod packet;
pub mod receive;
pub mod reported;
pub mod rtcp;
pub mod send;
