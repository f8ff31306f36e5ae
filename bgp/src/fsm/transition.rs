//! The transitions of RFC 4271 section 8.2.2, state by state.
//!
//! Where this departs from the letter, on purpose:
//! - Connect, event 18 without DelayOpen goes to Active rather than Idle, as it does with
//!   DelayOpen: a peer that cannot be reached yet may still reach us, and Idle would refuse it.
//! - A passive machine never connects; events 4 and 5 would have it do so when ConnectRetryTimer
//!   runs out.
//! - A NOTIFICATION is never answered with one, although "any other event" in OpenSent says so:
//!   section 6 forbids errors about errors.
//! - Established, event 21 sends the message header error of section 6.1, not an FSM error.
//! - OpenConfirm, where BFD is waited for: our KEEPALIVE is withheld until it is up, that of the peer
//!   is remembered and buys no time (draft-ietf-idr-bgp-bfd-strict-mode).
//! - OpenConfirm of a connection that may yet lose a collision: likewise, until the other is gone or
//!   [`super::CONTEST_TIME`] is over. A peer that has our KEEPALIVE is Established, and closing that connection then
//!   costs a session, and with graceful restart the routes that were kept (RFC 4724 section 4.2).
//! - Leaving for Idle other than by the operator's stop always starts the IdleHoldTimer; whoever
//!   was Idle by damping starts again when it runs out.

use std::time::Instant;

use super::{Action, Cause, Confirmed, Event, Fsm, OPEN_HOLD_TIME, State, Timer};
use crate::wire::message::kind;
use crate::wire::notification::{code, open_subcode};
use crate::wire::{Cease, Notification, UnexpectedIn};

impl Fsm {
    /// Takes one event and appends what is to be done about it.
    pub fn step(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match self.state {
            State::Idle => self.idle(event, now, actions),
            State::Connect | State::Active => self.connecting(event, now, actions),
            State::OpenSent => self.open_sent(event, now, actions),
            State::OpenConfirm => self.open_confirm(event, now, actions),
            State::Established => self.established(event, now, actions),
        }
    }

    fn idle(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::ManualStart => {
                self.connect_retry_counter = 0;
                self.damping.failures = 0;
                self.start(now, actions);
            }
            // Damped: only the end of the pause starts it.
            Event::AutomaticStart if self.timers.is_running(Timer::IdleHold) => {}
            Event::AutomaticStart | Event::Expired(Timer::IdleHold) => self.start(now, actions),
            // No restart until the operator says so, not even after a pause.
            Event::ManualStop(_) => self.timers.stop_all(),
            _ => {}
        }
    }

    fn start(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.timers.stop_all();
        if self.terms.passive {
            self.state = State::Active;
        } else {
            self.restart_connect_retry(now);
            self.state = State::Connect;
            actions.push(Action::Connect);
        }
    }

    /// Connect and Active differ in three events only.
    fn connecting(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let state = self.state;
        match event {
            Event::ManualStart | Event::AutomaticStart | Event::PathUp => {}
            Event::Uncontested => self.contested = false,
            Event::ManualStop(notification) => {
                // SendNOTIFICATIONwithoutOPEN: where there is a connection to send it on.
                let notification = notification.filter(|_| self.delaying_open());
                self.stop(notification, actions);
            }
            Event::Expired(Timer::ConnectRetry) => {
                if state == State::Connect {
                    actions.push(Action::Close);
                    actions.push(Action::Down(Cause::ConnectTimeout(
                        self.terms.connect_retry,
                    )));
                }
                self.timers.stop(Timer::DelayOpen);
                self.restart_connect_retry(now);
                self.state = State::Connect;
                actions.push(Action::Connect);
            }
            Event::Expired(Timer::DelayOpen) => self.send_open(now, actions),
            Event::TcpRequestAcked | Event::TcpConnectionConfirmed => {
                self.timers.stop(Timer::ConnectRetry);
                match self.terms.delay_open {
                    Some(delay) => self.timers.start(Timer::DelayOpen, now + delay),
                    None => self.send_open(now, actions),
                }
            }
            Event::TcpConnectionFails(why) if state == State::Connect => {
                let cause = match self.delaying_open() {
                    true => Cause::ConnectionLost(state, why),
                    false => Cause::ConnectFailed(why),
                };
                self.await_connection(cause, now, actions);
            }
            Event::TcpConnectionFails(why) => {
                self.fail(None, Cause::ConnectionLost(state, why), now, actions);
            }
            Event::Open { hold_time } if self.delaying_open() => {
                self.timers.stop_all();
                actions.push(Action::SendOpen);
                self.confirm(hold_time, now, actions);
            }
            // SendNOTIFICATIONwithoutOPEN is on: the peer is told what is wrong with its OPEN.
            Event::HeaderError(error) => {
                self.fail(
                    Some(error.notification()),
                    Cause::HeaderError(error),
                    now,
                    actions,
                );
            }
            Event::OpenError(error) => {
                self.fail(
                    Some(error.notification()),
                    Cause::OpenError(error),
                    now,
                    actions,
                );
            }
            Event::Notification(notification) => {
                // A version error on a delayed connection is no reason to count a failure.
                let counted = !(self.delaying_open() && is_version_error(&notification));
                self.leave(
                    None,
                    Cause::Notified(state, notification),
                    counted,
                    now,
                    actions,
                );
            }
            Event::AutomaticStop(notification) => {
                self.fail(None, Cause::AutomaticStop(notification), now, actions);
            }
            Event::OpenCollisionDump => self.fail(None, Cause::Collision, now, actions),
            other => {
                self.fail(None, Cause::Unexpected(state, name(&other)), now, actions);
            }
        }
    }

    fn open_sent(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::TcpConnectionFails(why) => {
                self.await_connection(Cause::ConnectionLost(State::OpenSent, why), now, actions);
            }
            Event::Open { hold_time } => {
                self.timers.stop_all();
                self.confirm(hold_time, now, actions);
            }
            other => self.opened(other, now, actions),
        }
    }

    fn open_confirm(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Keepalive => {
                self.confirmed.by_peer = true;
                if !self.awaits_path() {
                    self.restart_hold(now);
                }
                self.advance(now, actions);
            }
            Event::PathUp => {
                if self.terms.await_path && !self.confirmed.by_us {
                    self.timers.stop(Timer::Hold);
                    self.restart_hold(now);
                }
                self.advance(now, actions);
            }
            Event::Uncontested | Event::Expired(Timer::Contest) => {
                self.contested = false;
                self.timers.stop(Timer::Contest);
                self.advance(now, actions);
            }
            // Said by one that is Established: it keeps this connection.
            Event::Update | Event::RouteRefresh if self.confirmed == Confirmed::BOTH => {
                self.contested = false;
                self.restart_hold(now);
                self.advance(now, actions);
            }
            Event::Expired(Timer::Hold) if self.awaits_path() => {
                let notification = Notification::cease(Cease::BfdDown);
                let cause = Cause::PathNotUp(self.path_hold());
                self.fail(Some(notification), cause, now, actions);
            }
            Event::Expired(Timer::Keepalive) => self.keep_alive(now, actions),
            other => self.opened(other, now, actions),
        }
    }

    /// What OpenConfirm still lacks is done as far as it may be.
    fn advance(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.contested || self.awaits_path() {
            return;
        }
        if !self.confirmed.by_us {
            self.confirmed.by_us = true;
            self.keep_alive(now, actions);
        }
        if self.confirmed.by_peer {
            self.establish(now, actions);
        }
    }

    fn establish(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.timers.stop(Timer::Contest);
        self.state = State::Established;
        self.damping.established_at = Some(now);
        actions.push(Action::Up);
    }

    fn established(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        match event {
            Event::Expired(Timer::Keepalive) => self.keep_alive(now, actions),
            Event::Keepalive | Event::Update => self.restart_hold(now),
            Event::Expired(Timer::SendHold) => {
                let notification = Notification::send_hold_timer_expired();
                let cause = Cause::SendHoldTimerExpired(self.send_hold());
                self.fail(Some(notification), cause, now, actions);
            }
            Event::RouteRefresh => {}
            Event::UpdateError(error) => {
                self.fail(
                    Some(error.notification()),
                    Cause::UpdateError(error),
                    now,
                    actions,
                );
            }
            // An OPEN has no place here, good or bad.
            Event::OpenError(_) => self.unexpected(Event::Open { hold_time: 0 }, now, actions),
            other => self.opened(other, now, actions),
        }
    }

    /// What OpenSent, OpenConfirm and Established have in common.
    fn opened(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let state = self.state;
        match event {
            Event::ManualStart | Event::AutomaticStart | Event::PathUp => {}
            Event::Uncontested => self.contested = false,
            // Another connection of the peer has a machine of its own; collisions are resolved
            // between the two when the OPEN arrives.
            Event::TcpRequestAcked | Event::TcpConnectionConfirmed => {}
            Event::ManualStop(notification) => self.stop(notification, actions),
            Event::AutomaticStop(notification) => {
                let cause = Cause::AutomaticStop(notification.clone());
                self.fail(Some(notification), cause, now, actions);
            }
            Event::Expired(Timer::Hold) => {
                let silence = match state {
                    State::OpenSent => OPEN_HOLD_TIME,
                    _ => self.hold_time,
                };
                let notification = Notification::hold_timer_expired();
                let cause = Cause::HoldTimerExpired(state, silence);
                self.fail(Some(notification), cause, now, actions);
            }
            Event::TcpConnectionFails(why) => {
                self.fail(None, Cause::ConnectionLost(state, why), now, actions);
            }
            Event::HeaderError(error) => {
                self.fail(
                    Some(error.notification()),
                    Cause::HeaderError(error),
                    now,
                    actions,
                );
            }
            Event::OpenError(error) => {
                self.fail(
                    Some(error.notification()),
                    Cause::OpenError(error),
                    now,
                    actions,
                );
            }
            Event::OpenCollisionDump => {
                let notification = Notification::cease(Cease::ConnectionCollisionResolution);
                self.fail(Some(notification), Cause::Collision, now, actions);
            }
            Event::Notification(notification) => {
                let no_fault = is_version_error(&notification)
                    || notification.is_cease(Cease::ConnectionCollisionResolution);
                let counted = state == State::Established || !no_fault;
                self.leave(
                    None,
                    Cause::Notified(state, notification),
                    counted,
                    now,
                    actions,
                );
            }
            other => self.unexpected(other, now, actions),
        }
    }

    /// FSM error (RFC 4271 section 6.6, RFC 6608).
    fn unexpected(&mut self, event: Event, now: Instant, actions: &mut Vec<Action>) {
        let subcode = match self.state {
            State::OpenSent => UnexpectedIn::OpenSent,
            State::OpenConfirm => UnexpectedIn::OpenConfirm,
            State::Established => UnexpectedIn::Established,
            State::Idle | State::Connect | State::Active => UnexpectedIn::Unspecified,
        };
        let notification = match message_type(&event) {
            Some(message_type) => Notification::unexpected_message(subcode, message_type),
            None => Notification::new(code::FSM, UnexpectedIn::Unspecified as u8),
        };
        let cause = Cause::Unexpected(self.state, name(&event));
        self.fail(Some(notification), cause, now, actions);
    }

    fn send_open(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.timers.stop_all();
        self.timers.start(Timer::Hold, now + OPEN_HOLD_TIME);
        self.state = State::OpenSent;
        actions.push(Action::SendOpen);
    }

    /// The peer's OPEN is good.
    fn confirm(&mut self, hold_time: u16, now: Instant, actions: &mut Vec<Action>) {
        self.hold_time = std::time::Duration::from_secs(u64::from(hold_time));
        self.state = State::OpenConfirm;
        self.confirmed = Confirmed::default();
        match self.awaits_path() {
            true => self.timers.start(Timer::Hold, now + self.path_hold()),
            false => self.restart_hold(now),
        }
        if self.contested {
            self.contest(now);
        }
        self.advance(now, actions);
    }

    fn keep_alive(&mut self, now: Instant, actions: &mut Vec<Action>) {
        actions.push(Action::SendKeepalive);
        self.restart_keepalive(now);
    }

    /// The connection is gone, and no harm done: on to Active, where the peer may connect and we
    /// try again in a while.
    fn await_connection(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        self.timers.stop_all();
        self.contested = false;
        if !self.terms.passive {
            self.restart_connect_retry(now);
        }
        self.state = State::Active;
        actions.extend([Action::Close, Action::Down(cause)]);
    }

    /// Down by the operator: to Idle, to stay there.
    fn stop(&mut self, notification: Option<Notification>, actions: &mut Vec<Action>) {
        self.timers.stop_all();
        self.contested = false;
        self.connect_retry_counter = 0;
        self.damping = Default::default();
        self.state = State::Idle;
        actions.extend(notification.map(Action::SendNotification));
        actions.extend([Action::Close, Action::Down(Cause::ManualStop)]);
    }

    /// Down by failure: to Idle for a while.
    fn fail(
        &mut self,
        notification: Option<Notification>,
        cause: Cause,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.leave(notification, cause, true, now, actions);
    }

    fn leave(
        &mut self,
        notification: Option<Notification>,
        cause: Cause,
        counted: bool,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.timers.stop_all();
        self.contested = false;
        if counted {
            self.connect_retry_counter = self.connect_retry_counter.saturating_add(1);
        }
        // A collision is how two sides that both connect find together, no failure to damp.
        self.start_idle_hold(counted && cause != Cause::Collision, now);
        self.state = State::Idle;
        actions.extend(notification.map(Action::SendNotification));
        actions.extend([Action::Close, Action::Down(cause)]);
    }
}

/// Event 24.
fn is_version_error(notification: &Notification) -> bool {
    (notification.code, notification.subcode) == (code::OPEN, open_subcode::UNSUPPORTED_VERSION)
}

/// The type octet of the message that the event is.
fn message_type(event: &Event) -> Option<u8> {
    Some(match event {
        Event::Open { .. } | Event::OpenError(_) => kind::OPEN,
        Event::Keepalive => kind::KEEPALIVE,
        Event::Update | Event::UpdateError(_) => kind::UPDATE,
        Event::RouteRefresh => kind::ROUTE_REFRESH,
        Event::Notification(_) => kind::NOTIFICATION,
        _ => return None,
    })
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::ManualStart | Event::AutomaticStart => "start",
        Event::ManualStop(_) | Event::AutomaticStop(_) => "stop",
        Event::Expired(timer) => timer.name(),
        Event::TcpRequestAcked | Event::TcpConnectionConfirmed => "TCP connection",
        Event::TcpConnectionFails(_) => "loss of the TCP connection",
        Event::Open { .. } | Event::OpenError(_) => "OPEN",
        Event::HeaderError(_) => "wrong message header",
        Event::OpenCollisionDump => "collision",
        Event::Notification(_) => "NOTIFICATION",
        Event::Keepalive => "KEEPALIVE",
        Event::Update | Event::UpdateError(_) => "UPDATE",
        Event::PathUp => "BFD",
        Event::Uncontested => "end of the other connection",
        Event::RouteRefresh => "ROUTE-REFRESH",
    }
}
