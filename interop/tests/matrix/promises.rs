//! Two promises of our own that any router can witness; BIRD does.

use bgp::Announcement;
use interop::enter;
use interop::peer::Daemon;

use super::meeting::{Meeting, SOON, Terms, becomes, is_established, ours};

/// What a peer "has been told" is told of sessions that are up only.
#[test]
fn advertised_is_nothing_while_the_session_is_down() {
    enter::test(|lab| {
        let mut meeting = Meeting::established(lab, Daemon::Bird, "bird", &Terms::default())?;
        meeting.await_told()?;
        let count = |meeting: &Meeting| {
            let peer = meeting.peer()?;
            let counts = peer.prefixes.values().map(|counts| counts.advertised);
            Ok::<usize, super::meeting::Failure>(counts.sum())
        };
        assert_eq!(count(&meeting)?, 1);
        meeting.router.stop()?;
        meeting.await_peer("down", |peer| !is_established(peer))?;
        assert_eq!(count(&meeting)?, 0);
        let speaker = meeting.speaker()?;
        let told = speaker.ask(speaker.speaker.advertised());
        assert!(told.is_empty(), "{told:?}");
        Ok(())
    });
}

/// An implicit withdraw (RFC 4271 section 3.1): the second announcement of a prefix is in the place of
/// the first, with nothing withdrawn.
#[test]
fn an_announcement_replaces_the_one_before() {
    enter::test(|lab| {
        let meeting = Meeting::established(lab, Daemon::Bird, "bird", &Terms::default())?;
        let prefix = ours(meeting.family);
        for med in [5, 7] {
            let announcement = Announcement {
                med: Some(med),
                ..Announcement::new(prefix.to_string().parse()?)
            };
            let speaker = meeting.speaker()?;
            speaker.ask(speaker.speaker.announce(vec![announcement]))?;
            becomes(format!("one path, of MED {med}"), || {
                let routes = meeting.at_router()?;
                let right = routes.len() == 1 && routes[0].med == Some(med);
                Ok((!right).then(|| format!("{routes:?}")))
            })?;
        }
        meeting
            .router
            .await_established(meeting.our_address(), SOON)?;
        assert_eq!(meeting.peer()?.sessions, 1);
        Ok(())
    });
}
