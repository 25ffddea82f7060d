"""`slotune stress`: open-loop load against one address, step by step to where its objective breaks, and back."""
