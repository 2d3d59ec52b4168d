"""How good each epoch is: losses at fixed noise on fixed pictures, and what they say about which epoch is best."""
