"""What heads are made of: functions that lay stock Keras layers on a feature map [B, H, W, C].

Each takes `part`, which makes a named layer the first time and returns the same one ever after
(`BaseVisionHead.part`). So one function serves eager calls, building and the flat graph alike.
"""
