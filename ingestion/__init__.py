"""How Documents come in, are worked on, and are forgotten.

    claims → intake           a body is ruled on, sealed while it is read, recorded
    documents, collections    the rows; the Documents table is also the queue
    leases → worker           who works on which row, at which Site
    pipeline                  sealed → parsed → tagged → split → embedded → indexed → live
    sandbox, detectors, tagger, splitter    what a text is and where it points
    erasure                   keys, points, files, proof

Knows the residency engine and neither HTTP nor the command line.
"""
