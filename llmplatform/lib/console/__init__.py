"""What the console pages (/admin/) of all apps share: who may see what, actions, badges, figures, content policy."""
