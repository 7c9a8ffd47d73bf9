//! Seeded protocol bugs, for measuring the simulator and the model checker: each must be caught. No release build has
//! them. What became of each, and which ideas were dropped, is in `docs/mutants.md`.

#[cfg(feature = "mutants")]
use std::sync::atomic::{AtomicUsize, Ordering};

/// A seeded bug.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What its places in the code call it.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// For one that was written from the protocol's description alone, whatever an oracle can see: the rule, trace or
    /// section of the design that it drops.
    pub rule: Option<&'static str>,
}

#[cfg(feature = "mutants")]
const fn code(name: &'static str, breaks: &'static str) -> Mutant {
    let rule = None;
    Mutant { name, breaks, rule }
}

#[cfg(feature = "mutants")]
const fn rule(rule: &'static str, name: &'static str, breaks: &'static str) -> Mutant {
    let rule = Some(rule);
    Mutant { name, breaks, rule }
}

/// The mutant that breaks nothing.
#[cfg(feature = "mutants")]
pub const NULL: &str = "null";
/// The mutant that the first seeds must catch.
#[cfg(feature = "mutants")]
pub const CANARY: &str = "canary";

/// Every mutant.
#[cfg(feature = "mutants")]
#[rustfmt::skip]
pub const MUTANTS: &[Mutant] = &[
    code(NULL, "nothing: it must never be caught"),
    code(CANARY, "every write is acknowledged and none is done: it must be caught at once"),
    // The write path.
    code("acknowledge-before-mda", "the primary does not wait for the mirror"),
    code("commit-before-the-last-buffer", "the mirror's RIE becomes Valid before the data are absorbed"),
    code("commit-before-the-data", "an RIE is Valid from the beginning"),
    code("free-old-at-staging", "old data are freed when a write over them begins"),
    code("old-stays-valid", "the primary does not free old data after the commit"),
    code("old-not-restored", "a withdrawn write does not make the old data valid again"),
    code("old-data-unheld", "old data are freed when they reach the disk though a write in progress names them"),
    code("merge-nothing", "old data that a write covers only in part are not merged"),
    code("whole-mask", "a new buffer counts as valid as a whole, whatever was written to it"),
    code("rie-uses-uncounted", "all uses of an RIE have the same generation"),
    code("send-before-the-commit", "mirror data are sent when the mirror is armed, whether the host's data are here or not"),
    code("send-what-was-withdrawn", "a command that waits for a frame is forwarded though its host has withdrawn it"),
    code("forward-with-the-last-transfer", "a command is forwarded with the last transfer buffer, for which a read here waits"),
    code("an-rtr-of-an-earlier-use", "an RTR for an earlier use of an RIE is taken for one of the present use"),
    code("a-full-disk-hides-a-lack", "a read looks for a transfer buffer only once its disk has room for it"),
    code("only-who-is-waited-for-is-written", "what nobody waits for goes to disk only when nothing else is to go"),
    code("who-is-passed-over-waits-for-an-event", "turns are given once, though those that began change what others wait for"),
    code("who-wants-nothing-waits-for-memory", "a write of no blocks waits for NV memory, behind others"),
    code("what-waits-to-be-forwarded-has-no-deadline", "a write begins though its host may have sent it again through the partner"),
    code("who-was-asked-by-one-that-stops-is-deaf", "a controller that told one that stops that it sees the disks asks nobody for long"),
    code("whoever-joins-knows-of-late-metadata", "A becomes coordinator again while late metadata of B may still land"),
    code("whoever-joins-knows-of-late-zeroes", "A becomes coordinator again while late zeroes of B may still land"),
    code("carried-data-fill-the-memory", "data that cannot drain are carried to a joiner until no buffer is free"),
    code("reads-in-time-are-nothing", "that reads end in time says nothing of a disk of which others are late"),
    code("zero-where-zeroes-are-late", "PSEGs are zeroed though earlier zeroes may still land there"),
    code("hosts-fill-what-is-drained", "writes to a LUN that is to move are answered from memory until it is held back"),
    code("who-waits-for-its-data-waits-for-all", "a write that is to be on disk waits for everything older of its LUN"),
    code("small-writes-overtake-a-large-one", "a write that fits goes before one that waits for its disk's share of NV memory"),
    code("each-trouble-is-the-first", "what a disk does well makes it forget what it has failed at just before"),
    code("only-its-own-flush-can-fail", "a write of slots or metadata, or zeroes, whose flush failed, leaves what was written before as it is"),
    code("a-failed-flush-is-of-its-round", "what was written to a disk that failed a flush, but is not of that round, is not written again"),
    code("one-disk-has-all-that-is-lent", "what is forwarded to a disk that does not answer leaves no transfer buffer for others"),
    code("a-lun-has-one-share", "memory that waits for one disk of a LUN keeps the LUN from writing to its others"),
    code("carry-whole-granules", "data that are carried to a joiner count there as valid as a whole"),
    code("withdraw-what-may-be-done", "a forwarded write whose owner fell is called withdrawn though it may be done"),
    code("withdraw-before-the-data", "a withdrawn write ends though its data may still land where they were wanted"),
    code("recall-before-the-data", "the same for one that is to be forwarded"),
    code("withdrawn-though-done", "a forwarded write that its host withdrew meanwhile is called withdrawn though the owner has done it"),
    code("a-status-twice", "a host gets two statuses for a command"),
    code("withdraw-unsaid", "the mirror does not hear of a withdrawn write"),
    code("read-without-the-lock", "a read does not wait for a write in progress"),
    rule("§4", "mda-before-the-data", "the mirror says MDA when it is armed"),
    rule("§4", "releases-after-the-request", "the release of a twin does not go before a request that may name its buffer"),
    code("a-release-of-nothing-is-requested", "who has to hear of every release waits for one that says nothing"),
    code("releases-join-an-earlier-request", "a twin is released before the mirror hears that the write that named it is over"),
    code("mirror-does-not-merge", "the mirror does not merge old data"),
    code("mirror-keeps-old-valid", "the mirror does not free old data after its commit"),
    // Hosts.
    code("one-block-too-many", "a command may go one block past the end of its LUN"),
    code("one-block-too-few", "the last block of a LUN is taken for one past its end"),
    code("forward-nothing-at-all", "a command for no blocks is forwarded, and the owner makes no sense of it"),
    code("wait-for-a-silent-host", "the connection of a host that does not send the data of its write is not closed"),
    code("hosts-hear-of-no-record", "hosts are not told what a new record means for their LUNs"),
    code("hosts-hear-of-no-move", "hosts are not told that a LUN is between owners"),
    // Which part of the data goes where.
    code("fetch-from-the-beginning", "each portion of a write is fetched from the beginning of its data"),
    code("forward-the-beginning-again", "the same for a write that is forwarded"),
    code("scatter-from-the-second-block", "the data of a forwarded write are taken from the second block of the transfer buffer on"),
    code("answer-from-the-granules-beginning", "a forwarded read is answered from the beginning of its first granule"),
    code("send-to-the-beginning", "each portion of a read goes to the beginning of the host's data"),
    // Cache, reads and disks.
    code("drop-releases", "the release of a twin is not sent"),
    code("ignore-pins", "a buffer that a read needs is used again"),
    code("a-part-is-whole", "a buffer with some of the blocks that a read wants is taken for all of them"),
    code("overlay-nothing", "a read from disk does not look into the cache"),
    code("read-errors-ignored", "a failed disk read counts as done"),
    code("free-before-the-flush", "a buffer and its twin are freed when the disk write completes"),
    code("flush-one-disk", "of the disks that were written only the first is flushed"),
    code("write-one-copy", "only one copy of a mirrored RStore is written"),
    code("failed-writes-forgotten", "a failed disk write counts as done"),
    code("failed-flushes-forgotten", "a failed flush counts as done"),
    code("every-disk-must-be-in-order", "a write fails if one of the disks that it is for is out of order"),
    code("one-copy-is-tried", "a read fails if the first copy that it tries cannot be read"),
    code("who-takes-no-writes-is-not-read", "a disk that takes no writes is not read, where it has the only copy"),
    code("an-error-outlives-its-reads", "a read that begins anew fails because a part of it had failed before"),
    code("forget-an-overdue-write", "a buffer that an overdue disk write names is used again"),
    code("overdue-reads-get-what-is-left", "a read of the partner's that is overdue goes on elsewhere only if a transfer buffer is free when it is looked for"),
    code("a-missing-disk-holds-the-partners-memory", "what hangs on its way to a missing disk keeps its memory, and so the partner out"),
    code("a-hung-disk-holds-the-partners-memory", "what goes to disk for a partner that is out names the partner's memory, and keeps it out if it hangs"),
    code("forget-an-overdue-read", "a transfer buffer that an overdue disk read fills is used again"),
    code("deleted-data-keep-their-twins", "the partner is not told that what a deleted LUN left in memory is nothing"),
    code("age-not-inherited", "new data that take the place of unwritten old ones are younger than a sync that waits for those"),
    rule("§5", "a-flush-covers-later-writes", "a flush frees also what was written after it was issued"),
    rule("§5", "two-disk-writes-at-once", "a granule may have more than one disk write in flight"),
    rule("§5", "fua-from-memory", "FUA is acknowledged before the disks have the data"),
    rule("§5", "status-before-the-flush", "FUA and SYNCHRONIZE CACHE are acknowledged once the disks have taken the data, and before the flush"),
    rule("§5", "sync-does-not-wait", "SYNCHRONIZE CACHE is acknowledged at once"),
    rule("§5", "write-back-while-alone", "without a partner, status does not wait for the disks"),
    // Membership.
    code("trust-own-image-on-return", "a controller that returns keeps its image though the record names another"),
    code("serve-before-the-fence", "a takeover serves without waiting for the fence"),
    code("do-not-drain", "a restarted controller does not wait for its predecessor's disk writes"),
    code("leave-unheard", "who stops says that it leaves before its partner goes by the record that gives it all"),
    code("leave-with-a-lun", "who stops leaves though its partner has just moved a LUN back to it"),
    code("level-unheard", "after a restart of both, nobody says by which record it goes"),
    code("a-ballot-while-the-record-is-read", "whoever reads the record anew goes on with its vote, and takes the round for a look"),
    code("yield-and-vote", "who yields first finishes its own vote"),
    code("wait-for-locks-without-looking", "who waits for its locks does not look whether it was fenced meanwhile"),
    code("vote-without-looking", "who cannot write its slot does not look whether its partner was voted in"),
    code("accept-any-slot", "a ballot does not look at the partner's slot"),
    code("ignore-the-mirror-segment", "a takeover does not resolve the partner's segment"),
    code("a-newer-record-is-no-sign-of-life", "whose record changes at each look counts as still"),
    code("damage-is-sought-in-what-is-valid", "the words of a buffer that is free by its write are not looked at when an image is found"),
    code("level-nothing", "after a restart of both, the images are taken as they are"),
    code("both-while-untwinned", "BOTH is proposed before old data have drained"),
    code("name-old-data-that-the-joiner-lacks", "a write to a joiner names old data that it does not have"),
    code("remember-old-twins", "twins of a partner that is out still count"),
    rule("R9", "disk-before-mda-while-joining", "a write may reach the disks before the joiner has it"),
    code("metadata-before-the-record-is-told", "new metadata are written over those of a record that the slots still tell"),
    code("want-again-what-was-committed", "metadata that were in force are wanted again when others have followed"),
    code("wait-for-what-was-overtaken", "who reads the record anew still waits for the metadata of an older one"),
    code("both-change-the-metadata", "who decides begins a change of the metadata though its partner may be the next to decide"),
    code("deaf-while-a-lun-is-zeroed", "while a LUN is zeroed no disk is given up, and nothing else is done"),
    code("deaf-while-a-lun-is-fetched", "while a LUN is fetched to be deleted for an operator here no disk is given up"),
    code("who-is-answered-still-waits", "a task that was answered while it was interrupted takes the next answer, too"),
    code("a-last-copy-hides-other-disks", "a disk that cannot be given up is the only one that is to be"),
    code("a-bad-block-holds-all", "a piece that cannot be read keeps all others from being copied to a disk that comes back"),
    code("what-cannot-be-read-is-level", "a disk is a full copy again though a piece for it could not be read"),
    code("a-disk-that-lacks-keeps-others-out", "a disk for which a piece cannot be read keeps others from coming back"),
    code("a-bad-block-is-tried-at-once", "a piece that cannot be read is tried again and again, and hosts do not get the disk meanwhile"),
    code("wipe-what-a-vote-names", "who was voted in by a partner that fell takes a fresh image, and then finishes the vote, which names the old one"),
    code("greeted-by-the-record-before-the-vote", "who finishes the vote that has it in does not say hello anew, by the record that was decided"),
    code("what-a-missing-disk-is-to-take-counts", "metadata that hang on a disk that was given up keep the partner out"),
    code("a-piece-is-late-for-good", "what is read for a merging disk counts for nothing once it is overdue, and is read again for ever"),
    code("a-late-flush-of-copies-fails", "a flush of copies that ends late and well counts as failed, and all is copied anew"),
    code("what-is-overdue-has-failed", "what is written to a slow disk, and each flush, counts for nothing once it is overdue, and is done again for ever"),
    code("a-part-that-takes-nothing-is-waited-for", "who waits for data that a part of a disk does not take waits on as long as others are written there"),
    code("a-round-keeps-what-is-lost", "what a failed flush has lost of a round of flushes is written again only once the round has ended"),
    code("no-copy-is-lost-with-a-missing-disk", "a flush of copies that fails after its disk was given up says nothing of what has its only copy there"),
    code("a-disk-that-is-refused-is-asked-for-first", "a missing disk that the partner does not see keeps all others from coming back"),
    code("a-path-answers-since-it-was-opened", "of two slow paths the one that joins first ends the other, which is about to, and so for ever"),
    code("each-error-is-a-doubt", "a read that fails begins anew whenever this controller may be blind, and not only once"),
    code("only-its-owner-deletes-a-lun", "a LUN whose data wait for a dead disk is not deleted if its owner does not decide"),
    code("busy-with-what-the-partner-does", "a LUN that the partner is to delete for an operator here cannot be moved there"),
    code("serve-from-an-image-unnamed", "who finishes a vote of its predecessor serves from an image that the vote does not name"),
    code("deaf-while-the-partner-moves", "a coordinator gives up no disk while its partner drains a LUN for it"),
    code("acceptance-outlives-its-ballot", "a loss that an operator has once accepted makes every later takeover a clean one"),
    code("blind-for-ever", "a controller that does not see the disks, while its partner does, stays in"),
    code("deaf-while-the-partner-zeroes", "a controller whose operator's LUN the partner zeroes gives up no disk, and does not stop"),
    code("closed-after-a-refused-stop", "hosts that were shut out while a controller was to stop are not let in again when it does not"),
    code("who-is-late-is-looked-for-now-and-then", "a write that has waited for too long begins, if its turn comes before it is looked for"),
    code("forwards-wait-behind-reads", "a command that is to be forwarded, and does not get the last transfer buffer, lets reads behind it take it"),
    code("who-fetches-has-no-share", "what is forwarded to one disk is counted only once it has its data"),
    code("a-batch-takes-what-is-left", "a disk that hangs may hold a whole batch more than its part of NV memory"),
    code("a-lost-first-piece-counts", "the first piece that is copied to a disk counts though a flush of the disk failed while it was on its way"),
    code("a-ballot-that-fails-wakes-nobody", "who waits for the result of a ballot waits on when it has none"),
    code("what-dead-disks-hold-is-left", "each disk that dies gets as large a share of NV memory as the first"),
    code("all-wait-behind-what-cannot-come-free", "writes wait behind one for which a dead disk has not left enough memory"),
    code("a-share-only-grows", "nobody is looked at again when there is less free memory, and so others to wait behind"),
    code("each-hung-disk-holds-as-much", "each disk that does not answer may hold as many places, buffers and transfer buffers as the first"),
    code("wait-for-a-full-disk-that-stalls", "who waits for a disk that has all the reads it may have waits on when it does not answer any more"),
    code("who-is-out-hears-the-rest", "a controller that one message makes begin anew handles what came with it all the same"),
    code("a-read-that-ends-wakes-nobody", "who waits for a disk that has all the reads it may have waits for the whole of another command"),
    code("a-task-moves-when-something-happens", "a task goes one stage further, and the next only when something else happens"),
    code("refuse-by-another-record", "who does not know yet that a LUN was enlarged refuses what is forwarded to it"),
    code("others-wait-behind-who-is-held-back", "who waits for memory behind commands of a LUN that is quiesced waits on"),
    code("turns-before-tasks", "who waited for the end of a task begins when something else happens"),
    code("a-lost-joiner-wakes-nobody", "who waited for what a joiner lacks waits on when it is gone"),
    code("a-read-waits-for-what-is-known", "a read of which a part has failed waits for what was found out while the rest was under way"),
    code("reads-wait-for-forwards", "what is read here waits while a forwarded command lacks a transfer buffer of the owner"),
    code("wait-for-what-one-has", "the next portion of a long read waits for a transfer buffer, though it has one"),
    // The link.
    code("resend-for-ever", "what a path spoils is sent on it again, for ever"),
    code("requested-before-it-fits", "a request counts as sent that did not fit into the last frame of the window"),
    code("whatever-the-size-of-its-cache", "a partner is met whose cache has another size"),
    code("one-hello-is-a-link", "the link is up before this controller has said hello"),
    code("ask-whoever-returns", "a partner that comes back before the fence is complete is asked to mirror the writes in flight"),
    code("greet-a-lost-mirror", "a mirror that was lost is greeted while it may still be in"),
    code("goes-on-with-who-moved-on", "who says hello with another record on another path is taken for the one that was met"),
    code("choke-early", "a link is given up when a thousandth of what may wait does"),
    code("keep-without-the-payload", "a frame with payload that comes too early is kept, and its payload is not"),
    code("silence-while-stopped", "after a pause of its own a controller takes the silence for its partner's"),
    code("attach-now-or-never", "who wants to join where nobody serves yet loses its connection"),
    code("the-partner-has-what-is-missing", "who has lost its own memory calls for an operator to give up its partner's"),
    code("only-disks-that-fail-are-doubted", "a round over the slots that fails is no reason to ask the partner"),
    code("leave-all-to-a-blind-partner", "who stops does not ask whether its partner sees the disks"),
    code("a-slow-host-holds-up-a-lun", "a host that sends its data slowly is waited for though its LUN is held back"),
    code("silence-while-stopped-for-a-moment", "the same after a pause that is shorter than a partner may be silent"),
    code("execute-frames-twice", "a frame that arrives twice is handled twice"),
    // Leaks.
    code("leak-a-buffer", "the buffers of a withdrawn write are not freed"),
    code("leak-an-rie", "an RIE is not freed"),
    code("leak-an-mnode", "the MNODE of a withdrawn write is not freed"),
    code("leak-a-pin", "a read does not give its pins back"),
    code("leak-a-batch", "a batch of the destager is not freed"),
    // Locks and turns.
    code("overtake-a-lock-holder", "a command does not wait for one that came later and has the lock"),
    code("lock-blocks-not-granules", "the cache lock covers blocks, not whole granules"),
    code("one-round-after-the-other", "the next renewal begins in the step in which the last one has ended"),
    code("what-waits-for-a-frame-has-no-deadline", "a forwarded write that waits for its frame is sent however late"),
    code("what-came-while-it-stood-still-is-new", "what hosts sent while a controller stood still has waited since its end"),
    // Ballots.
    rule("R1", "one-disk-is-a-majority", "one quorum disk that answers is enough"),
    rule("R1", "a-forgotten-vote-counts", "what a predecessor has voted for on few disks, and nobody has seen since, may be adopted when its controller has served again"),
    rule("R1", "a-vote-of-who-gave-up-counts", "the same of the partner, for a controller that goes on alone"),
    rule("R1", "same-ballot-numbers", "ballots of A and B may have the same number"),
    rule("R1", "ignore-a-higher-ballot", "a ballot goes on though the partner has one with a higher number"),
    rule("R1", "ignore-the-rivals-vote", "a proposal that the partner voted for is not adopted"),
    rule("R1", "forget-the-own-vote", "a proposal that this controller voted for earlier is not kept"),
    rule("R1", "decide-before-a-majority-has-the-vote", "a vote decides before it is on a majority of the disks"),
    // Grants and leases.
    rule("R2", "grant-from-its-arrival", "a grant counts from when it is heard, not from when the heartbeat was sent"),
    rule("R2", "grant-whatever-happens", "who is not in, nor about to be, grants its partner to serve"),
    rule("R2", "lease-from-its-end", "a lease counts from when a majority has answered, not from when it was asked"),
    rule("R2", "a-look-is-a-lease", "a lease is renewed by reading the slots, without showing that this controller is alive"),
    rule("R2", "serve-past-the-grant", "with both in, status goes out past the grant"),
    rule("R2", "serve-past-the-lease", "alone, status goes out past the lease"),
    // Losing the partner, losing a ballot.
    rule("R3", "what-waits-for-leave-is-not-on-disk", "a write that was mirrored, and not acknowledged when the mirror fell, does not wait for the disks"),
    rule("R3", "acknowledge-before-the-ballot", "who loses its partner goes on before the ballot is decided"),
    rule("R4", "loser-replies", "the loser of a ballot acknowledges what it has in progress on its way out"),
    // The fence.
    rule("R5", "what-answered-before-the-fence-is-ready", "a missing disk comes back by what it answered before a fence that did not wait for it"),
    rule("R5", "a-lost-joiner-is-not-fenced", "whoever is lost on its way in is not fenced again, and what its predecessor had submitted is forgotten"),
    rule("R5", "the-record-is-a-fence", "a controller that starts under ALONE(self) does not fence again"),
    code("fence-whoever-it-was", "a fence ends the process that the partner was at the start, or before it came back"),
    // Clean.
    rule("R7", "stage-while-clean", "a write is staged under a clean record"),
    rule("R7", "stage-during-a-clean-ballot", "a write is staged while a ballot for clean is undecided"),
    rule("R7", "clean-with-data-in-flight", "clean is proposed though NV memory or the disks are busy"),
    // Images.
    rule("R8", "take-over-from-a-dirty-one", "a controller without a current image takes over from ALONE(other, dirty)"),
    code("one-image-is-both", "the loss of one image is told as the loss of both"),
    rule("R12", "late-commands-run", "after a pause host connections stay open"),
    rule("R12", "commands-of-the-gone-run", "a command whose host is gone begins all the same"),
    // LUNs that change their owner.
    code("execute-what-is-not-owned", "a forwarded command is executed by a controller that does not own the LUN any more"),
    rule("R11", "begin-though-quiesced", "commands begin on a LUN that is quiesced"),
    // More leaks.
    code("leak-an-htb", "an HTB is not freed"),
    code("leak-a-transfer", "a transfer buffer is not freed"),
    code("leak-a-disk-io", "a disk I/O is not freed"),
    // Restart and takeover.
    rule("R6", "hello-of-the-record-before", "who waits for its partner, and hears of a new record, does not say hello anew"),
    rule("R6", "level-while-undecided", "images are made level while a ballot is undecided"),
    rule("R6", "surplus-twins-stay", "a twin that the allocator has freed stays valid"),
    code("leveling-drops-all-writes", "writes in progress that both have absorbed are dropped"),
    rule("R10", "one-pair-after-the-other", "RIEs of one pair are released before the buffers of the other are resolved"),
    code("a-takeover-finds-twins", "data that a takeover resolved count as twinned"),
    code("writes-in-flight-hang", "writes in flight do not go on after a takeover"),
    // Joining.
    rule("R9", "both-while-a-write-has-no-mirror", "BOTH is proposed while a write that began before the joiner is in progress"),
    code("both-one-buffer-early", "BOTH is proposed while one buffer has no twin"),
    rule("R9", "forget-a-proposed-both", "when the link drops after BOTH was proposed, the one that is in goes on alone"),
    rule("R9", "both-behind-a-broken-link", "BOTH that wins behind a broken link is taken as it is"),
    code("orphans-share-their-memory", "a partner joins while commands that it forwarded before still use its transfer buffers"),
    // The link, forwarding.
    code("lost-frames-are-skipped", "a frame that comes out of order is handled, and what is missing before it is not waited for"),
    code("never-send-again", "a lost frame is not sent again"),
    code("one-frame-too-many-is-heard", "an acknowledgement counts for one frame more"),
    code("answer-a-call-of-before", "a command that was forwarded over an earlier connection is answered on this one"),
    code("leak-a-remote-transfer", "a transfer buffer of the partner is not freed"),
    code("leak-a-call", "calls to a partner that is out of reach are not voided"),
    // Tasks.
    code("an-operator-hears-twice", "an operator gets two answers"),
    code("reply-with-the-next-noid", "who makes a LUN is told of the next one"),
    rule("R11", "move-without-draining", "a LUN is moved while NV memory has data of it"),
    rule("R11", "move-under-commands", "a LUN is moved while commands for it are in progress"),
    rule("R11", "move-before-the-releases", "a LUN is moved before the partner has heard of every release"),
    code("new-luns-are-not-zeroed", "the PSEGs of a new LUN are not zeroed"),
    // Disks that come back.
    code("a-merging-disk-is-read", "a disk that is made level is read from before it is"),
    code("a-merging-disk-gets-no-writes", "what is written while a disk is made level does not go there"),
    code("move-under-a-merge", "a LUN is moved while a piece of it is on its way to a disk"),
    code("merge-under-a-disk-write", "a piece is copied while older data of its range are on their way to disk"),
    code("disk-writes-under-a-merge", "data of a range go to disk while a piece of it is copied"),
    code("normal-before-the-last-piece", "the last piece of each PSEG is not copied"),
    rule("R1", "an-empty-disk-votes", "a disk on which not both controllers have written their slots votes"),
    code("merge-without-a-flush", "what was copied counts as there before it is flushed"),
    code("nobody-asks-whether-all-is-level", "a merging disk is Normal once what the coordinator owns is level"),
    code("nobody-asks-the-partner-of-disks", "a missing disk is made level though the partner may have a write on its way"),
    code("metadata-without-a-majority", "metadata count as written whatever the disks say"),
    code("seal-nothing", "buffers get no checksums"),
    code("seal-what-was-written", "the checksum of a buffer does not cover old data that were merged into it"),
    code("mda-before-it-is-durable", "the mirror says MDA before NV memory says that its commit is durable"),
    code("status-before-the-commit-is-durable", "the primary does not wait until its commit is durable"),
    code("accept-any-loss", "what an operator gives up is given up, whether anything may be lost or not"),
    // Other cells, large pools.
    code("two-disks-are-a-majority", "two quorum disks that answer are enough, also of five"),
    code("pairs-across-rss", "the two disks of a pair may belong to different RSS"),
];

#[cfg(feature = "mutants")]
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// Makes the mutant `name` the active one in this process. Returns whether there is such a mutant.
#[cfg(feature = "mutants")]
pub fn activate(name: &str) -> bool {
    let found = MUTANTS.iter().position(|m| m.name == name);
    ACTIVE.store(found.unwrap_or(0), Ordering::Relaxed);
    found.is_some()
}

/// Whether the mutant `name` is active.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    match ACTIVE.load(Ordering::Relaxed) {
        0 => false,
        active => MUTANTS[active].name == name,
    }
}

/// Never: this build has no mutants.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub(crate) fn is(_name: &str) -> bool {
    false
}

#[cfg(all(test, feature = "mutants"))]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// The names that the code of this crate asks for.
    fn asked_for(dir: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                asked_for(&path, names);
            } else if path.file_name() != Some("mutant.rs".as_ref()) {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let calls = text.split("mutant::is(\"").skip(1);
                names.extend(calls.filter_map(|c| c.split_once('"')).map(|(name, _)| name.to_owned()));
            }
        }
    }

    #[test]
    fn every_mutant_has_a_place_in_the_code_and_every_place_a_mutant() {
        let mut asked = BTreeSet::new();
        asked_for(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut asked);
        let named: BTreeSet<String> = MUTANTS
            .iter()
            .map(|m| m.name.to_owned())
            .filter(|n| n != NULL)
            .collect();
        assert_eq!(named.len() + 1, MUTANTS.len(), "a name is given twice");
        assert_eq!(asked, named);
    }

    #[test]
    fn at_least_twenty_come_from_the_description() {
        assert!(MUTANTS.iter().filter(|m| m.rule.is_some()).count() >= 20);
    }
}
