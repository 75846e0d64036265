"""Video files on local disk: probing, joining (⊕_v) and frames (Θ_v).

The only room that calls ffmpeg and PyAV. It knows no storage, no shards and no recipe: local paths
go in, local files and small frozen records come out. Importing the package itself loads nothing
heavy; its modules load PyAV.
"""
