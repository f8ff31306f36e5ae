//! The gateway and the routers it peers with: each behaviour is a function, and each of BIRD,
//! GoBGP and FRR must show it.

/// A test of each behaviour with each router: `behaviour::bird` and so on.
macro_rules! with_each_router {
    ($($behaviour:ident),+ $(,)?) => {
        $(
            mod $behaviour {
                use interop::enter;
                use interop::peer::Daemon;

                #[test]
                fn bird() {
                    enter::test(|lab| super::$behaviour(lab, Daemon::Bird));
                }

                #[test]
                fn gobgp() {
                    enter::test(|lab| super::$behaviour(lab, Daemon::Gobgp));
                }

                #[test]
                fn frr() {
                    enter::test(|lab| super::$behaviour(lab, Daemon::Frr));
                }
            }
        )+
    };
}

mod collision;
mod dynamic;
mod encounter;
mod failures;
mod next_hops;
mod operator;
mod policies;
mod restarts;
mod roles;
mod routes;
mod speaker;
mod watch;
mod wire;
