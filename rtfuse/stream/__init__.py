"""Send fused video to media servers and players: RTSP, and MPEG-TS over UDP and TCP."""
