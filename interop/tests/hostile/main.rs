//! Hostile peers against a live agent: whatever they do, the agent's other session is not touched,
//! its memory stays bounded, it answers, and it comes to rest when they are gone.

mod messages;
mod sessions;
mod siege;
