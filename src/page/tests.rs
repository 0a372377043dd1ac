//! Pages of every state, and what may not be in them.
