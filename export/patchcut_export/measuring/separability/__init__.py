"""How well feature sets tell foreground from background, and things from one another."""
